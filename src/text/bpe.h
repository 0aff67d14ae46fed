// Byte-pair encoding of one word: start from characters (or bytes), merge the pair of the lowest
// rank, leftmost first, until none is left. Short words scan their pairs; long ones use a heap, O(n
// log n), since some models feed a whole document as one word.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/origin.h"
#include "text/tokenizer_spec.h"
#include "text/word_cuts.h"

namespace supersonic::text {

uint64_t hash_bytes(std::string_view bytes);

// String -> id over strings that live elsewhere (the model's token list).
class TokenIndex {
 public:
  void build(const std::vector<std::string>& tokens);
  int32_t find(std::string_view token) const;  // -1 when absent

 private:
  const std::vector<std::string>* tokens_ = nullptr;
  std::vector<int32_t> slots_;
};

// (left id, right id) -> rank and result.
class MergeTable {
 public:
  struct Entry {
    uint64_t key = UINT64_MAX;
    uint32_t rank = 0;
    int32_t result = -1;
  };
  void build(const std::vector<MergeRule>& merges);
  const Entry* find(int32_t left, int32_t right) const {
    const uint64_t key = uint64_t(uint32_t(left)) << 32 | uint32_t(right);
    for (size_t slot = key * 0x9E3779B97F4A7C15ull >> shift_;;
         slot = (slot + 1) & (slots_.size() - 1)) {
      if (slots_[slot].key == key) return &slots_[slot];
      if (slots_[slot].key == UINT64_MAX) return nullptr;
    }
  }

 private:
  std::vector<Entry> slots_;
  int shift_ = 63;
};

// Working memory of one encoding at a time, with the cache of recent words.
struct BpeScratch {
  struct Symbol {
    int32_t id, previous, next;  // next, previous: indices; id < 0: merged away
  };
  struct Candidate {
    uint32_t rank;
    int32_t at, result;
  };
  struct CachedWord {
    uint8_t size = 0, count = 0;
    char bytes[22];
    int32_t ids[10];
  };
  std::vector<int32_t> ids;
  std::vector<uint32_t> stops;  // for each start symbol: one past its last byte in the word
  std::vector<uint32_t> ranks;
  std::vector<int32_t> results;
  std::vector<Symbol> symbols;
  std::vector<Candidate> heap;
  std::vector<CachedWord> cache;  // direct mapped
};

class Bpe {
 public:
  // raw_bytes: words arrive as bytes whose mapped characters are the vocabulary's (ByteLevel).
  // `spec` outlives this.
  Bpe(const BpeSpec& spec, bool raw_bytes);
  // Appends the ids of `word` (not empty; valid UTF-8 unless raw_bytes).
  void encode(std::string_view word, BpeScratch& scratch, std::vector<int32_t>& out) const;
  // The same for a word with origins; `ends` gets one past each id's last source byte.
  void encode_followed(Stretch word, BpeScratch& scratch, std::vector<int32_t>& out,
                       std::vector<uint32_t>& ends) const;
  int32_t find(std::string_view token) const { return index_.find(token); }

 private:
  void encode_cached(std::string_view word, BpeScratch& scratch, std::vector<int32_t>& out) const;
  void encode_uncached(std::string_view word, BpeScratch& scratch, std::vector<int32_t>& out) const;
  void study_merges();
  void start(std::string_view word, BpeScratch& scratch) const;
  void start_bytes(std::string_view word, BpeScratch& scratch) const;
  void start_characters(std::string_view word, BpeScratch& scratch) const;
  void merge_short(BpeScratch& scratch) const;
  void merge_long(BpeScratch& scratch) const;

  const BpeSpec& spec_;
  bool raw_bytes_;
  TokenIndex index_, raw_index_;
  std::vector<std::string> raw_tokens_;  // unmapped, for ignore_merges on raw bytes
  MergeTable merges_;
  int32_t byte_ids_[256];      // raw byte -> id of its mapped character
  int32_t fallback_ids_[256];  // byte -> id of <0xXX>
  int32_t unk_ = -1;
  std::vector<uint32_t> widths_;  // by id: bytes of a word that it covers; 0: depends on the word
  WordCuts cuts_;                 // empty where a cut might change the ids
};

}  // namespace supersonic::text
