// Unigram (Kudo 2018): of all ways to cut a word into tokens the one with the highest sum of
// scores, by Viterbi from left to right. Characters that no token covers cost 10 more than the
// worst token; neighbours of that kind become one unknown token, or byte tokens where the model has
// them.
#pragma once
#include "text/trie.h"
#include "text/word_model.h"

namespace supersonic::text {

class Unigram final : public SpanModel {
 public:
  explicit Unigram(const ModelSpec& spec);

 private:
  void segment(std::string_view word, ModelScratch& scratch) const override;
  void find_paths(std::string_view word, ModelScratch& scratch) const;
  // Adds what stands for [begin, end), last id first.
  void add_unknown(std::string_view word, size_t begin, size_t end, ModelScratch& scratch) const;
  Trie trie_;
  double unknown_score_ = 0;
  int32_t unk_;            // -1: text that no token covers is refused
  int32_t byte_ids_[256];  // byte -> id of <0xXX>, -1 without
};

}  // namespace supersonic::text
