// Byte-pair encoding of one word: start from characters (or bytes), merge the pair of the lowest
// rank, leftmost first, until none is left. Short words scan their pairs; long ones use a heap, O(n
// log n), since some models feed a whole document as one word.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/word_cuts.h"
#include "text/word_model.h"

namespace supersonic::text {

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

class Bpe final : public WordModel {
 public:
  // raw_bytes: words arrive as bytes whose mapped characters are the vocabulary's (ByteLevel).
  // `spec` outlives this.
  Bpe(const ModelSpec& spec, bool raw_bytes);
  void encode(std::string_view word, ModelScratch& scratch,
              std::vector<int32_t>& out) const override;
  void encode_followed(Stretch word, ModelScratch& scratch, std::vector<int32_t>& out,
                       std::vector<uint32_t>& ends) const override;
  int32_t find(std::string_view token) const override { return index_.find(token); }

 private:
  void encode_cached(std::string_view word, ModelScratch& scratch, std::vector<int32_t>& out) const;
  void encode_uncached(std::string_view word, ModelScratch& scratch,
                       std::vector<int32_t>& out) const;
  void study_merges();
  void start(std::string_view word, ModelScratch& scratch) const;
  void start_bytes(std::string_view word, ModelScratch& scratch) const;
  void start_characters(std::string_view word, ModelScratch& scratch) const;
  void merge_short(ModelScratch& scratch) const;
  void merge_long(ModelScratch& scratch) const;

  const ModelSpec& spec_;
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
