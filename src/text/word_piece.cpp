// Both look the unknown token up once: a file that names one which is not in its vocabulary is
// refused when it is read.
#include "text/word_piece.h"

#include <algorithm>

#include "core/error.h"

namespace supersonic::text {
namespace {

int32_t unknown_of(const ModelSpec& spec, const TokenIndex& index) {
  const int32_t id = index.find(spec.unk_token);
  CHECK_FILE(id >= 0, "model.unk_token: '{}' is not in the vocabulary", spec.unk_token);
  return id;
}

void only(int32_t id, size_t size, ModelScratch& s) {
  s.ids.assign(1, id);
  s.stops.assign(1, static_cast<uint32_t>(size));
}

}  // namespace

WordPiece::WordPiece(const ModelSpec& spec) : SpanModel(spec), unk_(unknown_of(spec, index_)) {
  std::vector<std::string> matched = spec.tokens;
  for (size_t id = 0; id < spec.hidden.size(); ++id)
    if (spec.hidden[id]) matched[id].clear();
  trie_.build(matched);
  inside_ = trie_.walk(spec.subword_prefix);
}

void WordPiece::segment(std::string_view word, ModelScratch& s) const {
  const auto characters =
      std::count_if(word.begin(), word.end(), [](char c) { return (c & 0xC0) != 0x80; });
  if (characters > static_cast<ptrdiff_t>(spec_.longest_word) || !cover(word, s))
    only(unk_, word.size(), s);
}

bool WordPiece::cover(std::string_view word, ModelScratch& s) const {
  s.ids.clear();
  s.stops.clear();
  for (size_t begin = 0; begin < word.size();) {
    uint32_t node = begin ? inside_ : Trie::kRoot;
    int32_t best = -1;
    size_t end = begin;
    for (size_t at = begin; node != Trie::kNone && at < word.size();) {
      node = trie_.child(node, word[at++]);
      if (node == Trie::kNone || trie_.id(node) < 0) continue;
      best = trie_.id(node);
      end = at;
    }
    if (best < 0) return false;
    s.ids.push_back(best);
    s.stops.push_back(static_cast<uint32_t>(end));
    begin = end;
  }
  return true;
}

WordLevel::WordLevel(const ModelSpec& spec) : SpanModel(spec), unk_(unknown_of(spec, index_)) {}

bool WordLevel::hidden(int32_t id) const {
  return !spec_.hidden.empty() && spec_.hidden[static_cast<size_t>(id)];
}

void WordLevel::segment(std::string_view word, ModelScratch& s) const {
  const int32_t id = index_.find(word);
  only(id >= 0 && !hidden(id) ? id : unk_, word.size(), s);
}

}  // namespace supersonic::text
