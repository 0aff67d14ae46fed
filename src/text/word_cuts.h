// Where a word can be cut without changing its tokens: between two characters that stand side by
// side in no merge. A SentencePiece model takes a whole text as one word; cut so, it becomes words
// of natural size again, which are short to merge and come back often enough for the cache.
#pragma once
#include <cstdint>
#include <string_view>
#include <vector>

#include "text/tokenizer_spec.h"

namespace supersonic::text {

class WordCuts {
 public:
  // Every merge of `spec` joins two tokens that are spelt in characters, and every character
  // becomes a token of its own or byte tokens: then nothing acts across a cut.
  void build(const ModelSpec& spec);
  bool empty() const { return slots_.empty(); }
  // The end of the part that starts at `begin` of `word` (valid UTF-8).
  size_t part_end(std::string_view word, size_t begin) const;

 private:
  bool joined(uint32_t left, uint32_t right) const;
  uint64_t ascii_[128][2] = {};  // pairs of ASCII characters: row left, bit right
  std::vector<uint64_t> slots_;  // the others: left << 32 | right
  int shift_ = 63;
};

}  // namespace supersonic::text
