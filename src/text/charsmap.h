// SentencePiece's compiled normalization map ("precompiled_charsmap"): a little-endian u32 with the
// bytes of a double-array trie (darts-clone's units), the trie, then the replacements, each ended
// by a zero byte. It is applied as the `tokenizers` crate does: to whole grapheme clusters of less
// than 6 bytes, else to single characters, and of the keys that start a cluster the shortest
// counts; or as SentencePiece itself does: the longest key at each place of the text.
#pragma once
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/origin.h"

namespace supersonic::text {

class Charsmap {
 public:
  // Throws Error(bad_file) where sizes lie or the replacements are not UTF-8.
  explicit Charsmap(std::string_view compiled, bool clusters = true);
  // Changes `text` (valid UTF-8) and its origins (or null) in place.
  void apply(std::string& text, Origins* origins) const;

 private:
  struct Rule {
    size_t bytes = 0;  // of the key; 0: no key starts the text
    std::string_view to;
  };
  Rule shortest(std::string_view text) const { return find(text, false); }
  Rule longest(std::string_view text) const { return find(text, true); }
  Rule find(std::string_view text, bool longest) const;
  std::string_view replacement(size_t begin) const;
  uint32_t unit(uint32_t at) const;
  void rewrite(std::string_view cluster, size_t at, Rewriter& out) const;
  std::vector<uint32_t> units_;
  std::string replacements_;
  bool clusters_;
  std::array<bool, 128> ascii_stays_{};  // no key starts with it
};

// Bytes of base64 text (RFC 4648, padded); nothing when it is not that.
std::optional<std::string> from_base64(std::string_view text);
std::string to_base64(std::string_view bytes);

}  // namespace supersonic::text
