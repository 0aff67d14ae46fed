// Scores are added in double and in the order of the text, as the `tokenizers` crate does it, or in
// float, as SentencePiece does: ties and roundings fall the same way.
#include "text/unigram.h"

#include <fmt/core.h>

#include <algorithm>

#include "core/error.h"
#include "text/unicode.h"

namespace supersonic::text {

Unigram::Unigram(const ModelSpec& spec) : SpanModel(spec), unk_(spec.unk_id) {
  CHECK_FILE(spec.scores.size() == spec.tokens.size(), "model.vocab: {} scores for {} tokens",
             spec.scores.size(), spec.tokens.size());
  CHECK_FILE(spec.unk_id < static_cast<int64_t>(spec.tokens.size()),
             "model.unk_id: {} of {} tokens", spec.unk_id, spec.tokens.size());
  double least = 0;
  for (size_t id = 0; id < spec.scores.size(); ++id)
    least = id ? std::min(least, spec.scores[id]) : spec.scores[id];
  unknown_score_ = least - 10.0;
  for (int b = 0; b < 256; ++b)
    byte_ids_[b] = spec.byte_fallback ? index_.find(fmt::format("<0x{:02X}>", b)) : -1;
  std::vector<std::string> matched = spec.tokens;
  for (size_t id = 0; id < spec.hidden.size(); ++id)
    if (spec.hidden[id]) matched[id].clear();
  trie_.build(matched);
}

void Unigram::find_paths(std::string_view word, ModelScratch& s) const {
  s.paths.assign(word.size() + 1, {0.0, 0, -1});
  const auto reach = [&](size_t end, size_t begin, double score, int32_t id) {
    ModelScratch::Path& path = s.paths[end];
    if (spec_.float_sums) score = static_cast<float>(score);
    if (path.id < 0 || score > path.score) path = {score, static_cast<uint32_t>(begin), id};
  };
  for (size_t begin = 0; begin < word.size();) {
    const double here = s.paths[begin].score;
    const size_t next = begin + utf8_length(static_cast<unsigned char>(word[begin]));
    bool covered = false;
    uint32_t node = Trie::kRoot;
    for (size_t at = begin; at < word.size();) {
      node = trie_.child(node, word[at++]);
      if (node == Trie::kNone) break;
      const int32_t id = trie_.id(node);
      if (id < 0) continue;
      reach(at, begin, spec_.scores[static_cast<size_t>(id)] + here, id);
      covered = covered || at == next;
    }
    if (!covered) {
      CHECK_FILE(unk_ >= 0, "model.unk_id: is missing, and '{}' is in no token",
                 word.substr(begin, next - begin));
      reach(next, begin, unknown_score_ + here, unk_);
    }
    begin = next;
  }
}

void Unigram::add_unknown(std::string_view word, size_t begin, size_t end, ModelScratch& s) const {
  const std::string_view text = word.substr(begin, end - begin);
  const auto add = [&](int32_t id, size_t stop) {
    s.ids.push_back(id);
    s.stops.push_back(static_cast<uint32_t>(stop));
  };
  const uint32_t node = trie_.walk(text);
  if (node != Trie::kNone && trie_.id(node) >= 0) return add(trie_.id(node), end);
  const auto byte_id = [&](char c) { return byte_ids_[static_cast<uint8_t>(c)]; };
  if (!std::all_of(text.begin(), text.end(), [&](char c) { return byte_id(c) >= 0; }))
    return add(unk_, end);
  for (size_t at = end; at > begin; --at) add(byte_id(word[at - 1]), at);
}

void Unigram::segment(std::string_view word, ModelScratch& s) const {
  CHECK(word.size() < (size_t{1} << 31), "tokenizer: a word of {} bytes is too long", word.size());
  find_paths(word, s);
  s.ids.clear();
  s.stops.clear();
  for (size_t end = word.size(); end > 0;) {  // from the last token back to the first
    size_t begin = s.paths[end].begin;
    if (s.paths[end].id != unk_) {
      s.ids.push_back(s.paths[end].id);
      s.stops.push_back(static_cast<uint32_t>(end));
    } else {
      while (begin > 0 && s.paths[begin].id == unk_) begin = s.paths[begin].begin;
      add_unknown(word, begin, end, s);
    }
    end = begin;
  }
  std::reverse(s.ids.begin(), s.ids.end());
  std::reverse(s.stops.begin(), s.stops.end());
}

}  // namespace supersonic::text
