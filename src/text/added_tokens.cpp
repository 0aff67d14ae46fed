// Matching narrows the sorted list byte by byte; text that starts no token is skipped with one
// table look-up a byte.
#include "text/added_tokens.h"

#include <algorithm>

#include "text/unicode.h"

namespace supersonic::text {
namespace {

bool word_before(std::string_view text, size_t at) {
  return at > 0 && is_word(code_at(previous_char(text.data() + at)));
}
bool word_after(std::string_view text, size_t at) {
  return at < text.size() && is_word(code_at(text.data() + at));
}

size_t spaces_before(std::string_view text, size_t at) {
  while (at > 0) {
    const char* p = previous_char(text.data() + at);
    if (!is_in(code_at(p), kSpace)) break;
    at = static_cast<size_t>(p - text.data());
  }
  return at;
}
size_t spaces_after(std::string_view text, size_t at) {
  while (at < text.size()) {
    const char* p = text.data() + at;
    if (!is_in(next_code(p), kSpace)) break;
    at = static_cast<size_t>(p - text.data());
  }
  return at;
}

enum class Verdict { take, skip, retry };  // retry: look again one character later

// A special token inside untrusted text is skipped whole, as the crate does; one that only touches
// untrusted text must not hide a trusted one behind it.
Verdict judge(const AddedToken& token, Stretch spelling, bool special_allowed) {
  if (!token.special) return Verdict::take;
  if (!spelling.origin) return special_allowed ? Verdict::take : Verdict::skip;
  const size_t size = spelling.text.size();
  const auto trusted = static_cast<size_t>(
      std::count_if(spelling.origin, spelling.origin + size, [](Origin o) { return o.trusted; }));
  return trusted == size ? Verdict::take : trusted == 0 ? Verdict::skip : Verdict::retry;
}

}  // namespace

void AddedTokens::build(std::vector<Entry> entries) {
  std::erase_if(entries, [](const Entry& e) { return e.text.empty(); });
  entries_ = std::move(entries);
  std::stable_sort(entries_.begin(), entries_.end(),
                   [](const Entry& a, const Entry& b) { return a.text < b.text; });
  size_t at = 0;
  for (uint32_t b = 0; b < 256; ++b) {
    first_[b] = static_cast<uint32_t>(at);
    while (at < entries_.size() && static_cast<uint8_t>(entries_[at].text[0]) == b) ++at;
  }
  first_[256] = static_cast<uint32_t>(at);
}

int AddedTokens::longest_match(std::string_view text) const {
  const auto lead = static_cast<uint8_t>(text[0]);
  size_t low = first_[lead], high = first_[lead + 1];
  int best = -1;
  for (size_t depth = 1; low < high; ++depth) {
    if (entries_[low].text.size() == depth) best = static_cast<int>(low);  // shorter sorts first
    while (low < high && entries_[low].text.size() == depth) ++low;
    if (depth >= text.size()) break;
    const auto byte = static_cast<uint8_t>(text[depth]);
    const auto begin = entries_.begin() + static_cast<ptrdiff_t>(low),
               end = entries_.begin() + static_cast<ptrdiff_t>(high);
    const auto at = [depth](const Entry& e) { return static_cast<uint8_t>(e.text[depth]); };
    const auto from =
        std::partition_point(begin, end, [&](const Entry& e) { return at(e) < byte; });
    const auto to = std::partition_point(from, end, [&](const Entry& e) { return at(e) <= byte; });
    low = static_cast<size_t>(from - entries_.begin());
    high = static_cast<size_t>(to - entries_.begin());
  }
  return best;
}

void AddedTokens::split(Stretch in, bool special_allowed, std::vector<AddedPart>& parts) const {
  const std::string_view text = in.text;
  size_t done = 0;
  for (size_t at = 0; at < text.size();) {
    const auto lead = static_cast<uint8_t>(text[at]);
    const int found = first_[lead] == first_[lead + 1] ? -1 : longest_match(text.substr(at));
    if (found < 0) {
      ++at;
      continue;
    }
    const Entry& entry = entries_[static_cast<size_t>(found)];
    const AddedToken& token = entry.token;
    size_t begin = at, end = at + entry.text.size();
    const Verdict verdict = judge(token, in.part(begin, end), special_allowed);
    at = verdict == Verdict::retry ? at + 1 : end;
    if (verdict != Verdict::take) continue;
    if (token.single_word && (word_before(text, begin) || word_after(text, end))) continue;
    if (token.lstrip) begin = std::max(spaces_before(text, begin), done);
    if (token.rstrip) end = spaces_after(text, end);
    if (done < begin) parts.push_back({done, begin, -1});
    parts.push_back({begin, end, token.id});
    done = end;
  }
  if (done < text.size()) parts.push_back({done, text.size(), -1});
}

}  // namespace supersonic::text
