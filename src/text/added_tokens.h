// Added tokens: strings that are found in the text before (raw) or after (normalized) normalization
// and become their id at once. Matches are leftmost, then longest, and do not overlap, as in the
// `tokenizers` crate.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/origin.h"
#include "text/tokenizer_spec.h"

namespace supersonic::text {

struct AddedPart {
  size_t begin, end;
  int32_t id;  // -1: text
};

class AddedTokens {
 public:
  struct Entry {
    std::string text;
    AddedToken token;
  };
  void build(std::vector<Entry> entries);
  bool empty() const { return entries_.empty(); }
  // Cuts the text into added tokens and the stretches between them. Where it has origins, special
  // tokens match only where all bytes are trusted; else special_allowed decides.
  void split(Stretch in, bool special_allowed, std::vector<AddedPart>& parts) const;

 private:
  int longest_match(std::string_view text) const;  // index of the entry that starts the text, or -1
  std::vector<Entry> entries_;                     // sorted by text
  uint32_t first_[257] = {};  // entries that start with byte b: [first_[b], first_[b + 1])
};

}  // namespace supersonic::text
