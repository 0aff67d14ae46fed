// What turns one word into ids: BPE, Unigram, WordPiece or WordLevel behind one interface, with the
// working memory and the cache of recent words that all of them use.
#pragma once
#include <cstdint>
#include <cstring>
#include <memory>
#include <string_view>
#include <vector>

#include "text/origin.h"
#include "text/token_index.h"
#include "text/tokenizer_spec.h"

namespace supersonic::text {

// Ids of short words that were encoded before, direct mapped: a word that comes again replaces the
// work by one comparison.
class WordCache {
 public:
  static constexpr size_t kLongest = 22;  // bytes of a word that is kept
  struct Entry {
    uint8_t size = 0, count = 0;
    char bytes[kLongest];
    int32_t ids[10];
    bool holds(std::string_view word) const {
      return size == word.size() && std::memcmp(bytes, word.data(), word.size()) == 0;
    }
  };
  Entry& slot(std::string_view word) {
    if (entries_.empty()) entries_.resize(kSlots);
    return entries_[hash_bytes(word) >> 30 & (kSlots - 1)];
  }
  // Keeps the ids, if they fit.
  static void keep(Entry& entry, std::string_view word, const int32_t* ids, size_t count) {
    if (count > std::size(entry.ids)) return;
    entry.size = static_cast<uint8_t>(word.size());
    entry.count = static_cast<uint8_t>(count);
    std::memcpy(entry.bytes, word.data(), word.size());
    std::memcpy(entry.ids, ids, count * sizeof *ids);
  }

 private:
  static constexpr size_t kSlots = 1 << 14;
  std::vector<Entry> entries_;
};

// Working memory of one encoding at a time.
struct ModelScratch {
  struct Symbol {
    int32_t id, previous, next;  // next, previous: indices; id < 0: merged away
  };
  struct Candidate {
    uint32_t rank;
    int32_t at, result;
  };
  struct Path {  // the best way to the end of a prefix
    double score;
    uint32_t begin;
    int32_t id;  // -1: none yet
  };
  std::vector<int32_t> ids;
  std::vector<uint32_t> stops;  // for each id: one past its last byte in the word
  std::vector<uint32_t> ranks;
  std::vector<int32_t> results;
  std::vector<Symbol> symbols;
  std::vector<Candidate> heap;
  std::vector<Path> paths;
  WordCache cache;
};

class WordModel {
 public:
  virtual ~WordModel() = default;
  // Appends the ids of `word` (not empty; valid UTF-8 unless the model takes raw bytes).
  virtual void encode(std::string_view word, ModelScratch& scratch,
                      std::vector<int32_t>& out) const = 0;
  // The same for a word with origins; `ends` gets one past each id's last source byte.
  virtual void encode_followed(Stretch word, ModelScratch& scratch, std::vector<int32_t>& out,
                               std::vector<uint32_t>& ends) const = 0;
  virtual int32_t find(std::string_view token) const = 0;  // -1 when absent
};

// A model that finds the ids of a word together with where they stop in it: the cache and the
// origins are then the same for all.
class SpanModel : public WordModel {
 public:
  void encode(std::string_view word, ModelScratch& scratch, std::vector<int32_t>& out) const final;
  void encode_followed(Stretch word, ModelScratch& scratch, std::vector<int32_t>& out,
                       std::vector<uint32_t>& ends) const final;
  int32_t find(std::string_view token) const final { return index_.find(token); }

 protected:
  explicit SpanModel(const ModelSpec& spec) : spec_(spec) { index_.build(spec.tokens); }
  // Fills scratch.ids and scratch.stops.
  virtual void segment(std::string_view word, ModelScratch& scratch) const = 0;
  const ModelSpec& spec_;
  TokenIndex index_;
};

// raw_bytes: words arrive as bytes whose mapped characters are the vocabulary's (ByteLevel; BPE
// alone). `spec` outlives the result.
std::unique_ptr<WordModel> make_word_model(const ModelSpec& spec, bool raw_bytes);

}  // namespace supersonic::text
