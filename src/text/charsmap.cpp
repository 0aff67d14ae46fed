// The trie's units: bits 0-7 and 31 the label, bit 8 whether a value hangs below, bits 10-30 the
// offset to the children, times 256 when bit 9 is set; a value is bits 0-30.
#include "text/charsmap.h"

#include <utf8proc.h>

#include <algorithm>

#include "core/error.h"
#include "text/normalizer_steps.h"

namespace supersonic::text {
namespace {

constexpr const char* kField = "normalizer.precompiled_charsmap";
constexpr size_t kLongestCluster = 5;  // bytes; a longer one is mapped by its characters

uint32_t offset_of(uint32_t unit) { return (unit >> 10) << ((unit & 1u << 9) >> 6); }

// Where the grapheme cluster that starts at `at` ends.
size_t cluster_end(std::string_view text, size_t at) {
  const char *p = text.data() + at, *end = text.data() + text.size();
  uint32_t left = next_code(p);
  for (utf8proc_int32_t state = 0; p < end;) {
    const char* next = p;
    const uint32_t right = next_code(next);
    if (left < 128 && right < 128 && !(left == '\r' && right == '\n')) break;
    bool cut = utf8proc_grapheme_break_stateful(static_cast<utf8proc_int32_t>(left),
                                                static_cast<utf8proc_int32_t>(right), &state);
    if (in_ranges(right, kOtherExtenders)) cut = !cut;
    if (cut) break;
    left = right;
    p = next;
  }
  return static_cast<size_t>(p - text.data());
}

}  // namespace

Charsmap::Charsmap(std::string_view compiled, bool clusters) : clusters_(clusters) {
  const auto word = [&](size_t at) {
    uint32_t value = 0;
    for (size_t i = 0; i < 4; ++i)
      value |= uint32_t{static_cast<unsigned char>(compiled[at + i])} << 8 * i;
    return value;
  };
  CHECK_FILE(compiled.size() >= 8, "{}: {} bytes are too few", kField, compiled.size());
  const size_t size = word(0);
  CHECK_FILE(size >= 4 && size % 4 == 0 && size <= compiled.size() - 4,
             "{}: a trie of {} bytes in a map of {}", kField, size, compiled.size());
  for (size_t at = 4; at < size + 4; at += 4) units_.push_back(word(at));
  replacements_ = compiled.substr(size + 4);
  CHECK_FILE(valid_utf8(replacements_), "{}: the replacements are not UTF-8", kField);
  for (size_t c = 0; c < 128; ++c) {
    const bool begins_key =
        c && (unit(offset_of(units_[0]) ^ static_cast<uint32_t>(c)) & (1u << 31 | 0xFF)) == c;
    ascii_stays_[c] = c != '\r' && !begins_key;  // CR LF is a cluster
  }
}

uint32_t Charsmap::unit(uint32_t at) const {
  CHECK_FILE(at < units_.size(), "{}: the trie points to unit {} of {}", kField, at, units_.size());
  return units_[at];
}

std::string_view Charsmap::replacement(size_t begin) const {
  CHECK_FILE(begin <= replacements_.size() &&
                 (begin == replacements_.size() || (replacements_[begin] & 0xC0) != 0x80),
             "{}: the trie points to byte {} of {} replacements", kField, begin,
             replacements_.size());
  const size_t end = std::min(replacements_.find('\0', begin), replacements_.size());
  return std::string_view(replacements_).substr(begin, end - begin);
}

Charsmap::Rule Charsmap::find(std::string_view text, bool longest) const {
  Rule rule;
  uint32_t at = offset_of(units_[0]);
  for (size_t i = 0; i < text.size(); ++i) {
    const auto label = static_cast<unsigned char>(text[i]);
    if (!label) break;
    at ^= label;
    const uint32_t here = unit(at);
    if ((here & (1u << 31 | 0xFF)) != label) break;
    at ^= offset_of(here);
    if (!(here >> 8 & 1)) continue;
    rule = {i + 1, replacement(unit(at) & ~(1u << 31))};
    if (!longest) break;
  }
  return rule;
}

// `cluster` stands at `at` of the text.
void Charsmap::rewrite(std::string_view cluster, size_t at, Rewriter& out) const {
  if (cluster.size() <= kLongestCluster)
    if (const Rule rule = shortest(cluster); rule.bytes)
      return out.replace(at, at + cluster.size(), rule.to);
  for (size_t i = 0; i < cluster.size();) {
    const size_t n = utf8_length(static_cast<unsigned char>(cluster[i]));
    if (const Rule rule = shortest(cluster.substr(i, n)); rule.bytes)
      out.replace(at + i, at + i + n, rule.to);
    else
      out.copy(at + i, at + i + n);
    i += n;
  }
}

void Charsmap::apply(std::string& text, Origins* origins) const {
  const std::string_view in = text;
  const auto plain = [&](size_t at) {
    return at >= in.size() || static_cast<signed char>(in[at]) >= 0;
  };
  Rewriter out(whole(text, origins));
  out.reserve(in.size() + in.size() / 8);
  for (size_t at = 0; at < in.size();) {
    size_t end = at;  // ASCII that stays, and has nothing behind it that might join it
    while (end < in.size() && plain(end) && ascii_stays_[static_cast<size_t>(in[end])] &&
           plain(end + 1))
      ++end;
    if (end > at) {
      out.copy(at, end);
      at = end;
      continue;
    }
    if (!clusters_) {
      const Rule rule = longest(in.substr(at));
      end = at + (rule.bytes ? rule.bytes : utf8_length(static_cast<unsigned char>(in[at])));
      rule.bytes ? out.replace(at, end, rule.to) : out.copy(at, end);
      at = end;
      continue;
    }
    end = cluster_end(in, at);
    rewrite(in.substr(at, end - at), at, out);
    at = end;
  }
  finish(out, text, origins);
}

std::optional<std::string> from_base64(std::string_view text) {
  constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  if (text.size() % 4) return std::nullopt;
  std::array<int8_t, 256> value;
  value.fill(-1);
  for (size_t i = 0; i < 64; ++i)
    value[static_cast<unsigned char>(kDigits[i])] = static_cast<int8_t>(i);
  const size_t padding = text.ends_with("==") ? 2 : text.ends_with('=') ? 1 : 0;
  std::string out;
  out.reserve(text.size() / 4 * 3);
  for (size_t at = 0; at < text.size(); at += 4) {
    uint32_t bits = 0;
    const size_t digits = at + 4 == text.size() ? 4 - padding : 4;
    for (size_t i = 0; i < digits; ++i) {
      const int8_t digit = value[static_cast<unsigned char>(text[at + i])];
      if (digit < 0) return std::nullopt;
      bits |= static_cast<uint32_t>(digit) << (18 - 6 * i);
    }
    for (size_t i = 0; i + 1 < digits; ++i) out += static_cast<char>(bits >> (16 - 8 * i));
  }
  return out;
}

std::string to_base64(std::string_view bytes) {
  constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (size_t at = 0; at < bytes.size(); at += 3) {
    const size_t n = std::min<size_t>(3, bytes.size() - at);
    uint32_t bits = 0;
    for (size_t i = 0; i < n; ++i)
      bits |= uint32_t{static_cast<unsigned char>(bytes[at + i])} << (16 - 8 * i);
    for (size_t i = 0; i < 4; ++i) out += i <= n ? kDigits[bits >> (18 - 6 * i) & 63] : '=';
  }
  return out;
}

}  // namespace supersonic::text
