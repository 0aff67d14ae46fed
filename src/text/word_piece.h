// WordPiece (Schuster & Nakajima 2012): the longest token that starts the word, then the longest
// one that goes on (written with a prefix, "##"), to its end; a word that cannot be covered is one
// unknown token. WordLevel: a word is a token, or unknown.
#pragma once
#include "text/trie.h"
#include "text/word_model.h"

namespace supersonic::text {

class WordPiece final : public SpanModel {
 public:
  explicit WordPiece(const ModelSpec& spec);

 private:
  void segment(std::string_view word, ModelScratch& scratch) const override;
  bool cover(std::string_view word, ModelScratch& scratch) const;
  Trie trie_;
  uint32_t inside_;  // where the prefix leads in the trie
  int32_t unk_;
};

class WordLevel final : public SpanModel {
 public:
  explicit WordLevel(const ModelSpec& spec);

 private:
  void segment(std::string_view word, ModelScratch& scratch) const override;
  bool hidden(int32_t id) const;
  int32_t unk_;
};

}  // namespace supersonic::text
