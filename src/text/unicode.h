// Unicode facts that tokenizers need: general categories (those of the `tokenizers` package), UTF-8
// stepping and repair. Categories are numbers, so that a character class is a bit mask and a test
// is a shift. Stepping functions expect valid UTF-8; `repair_utf8` makes it valid.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace supersonic::text {

enum Category : uint8_t {  // White control characters (tab … CR, NEL) have a number of their own:
                           // \s is then a mask
  Cn,
  Lu,
  Ll,
  Lt,
  Lm,
  Lo,
  Mn,
  Mc,
  Me,
  Nd,
  Nl,
  No,
  Pc,
  Pd,
  Ps,
  Pe,
  Pi,
  Pf,
  Po,
  Sm,
  Sc,
  Sk,
  So,
  Zs,
  Zl,
  Zp,
  Cc,
  Cf,
  Cs,
  Co,
  Cw
};

template <class... C>
constexpr uint32_t category_mask(C... c) {
  return (0u | ... | (1u << c));
}
inline constexpr uint32_t kLetter = category_mask(Lu, Ll, Lt, Lm, Lo),
                          kMark = category_mask(Mn, Mc, Me), kNumber = category_mask(Nd, Nl, No),
                          kSpace = category_mask(Zs, Zl, Zp, Cw),
                          kPunctuation = category_mask(Pc, Pd, Ps, Pe, Pi, Pf, Po),
                          kSymbol = category_mask(Sm, Sc, Sk, So);

extern const uint32_t kCategoryRuns[];  // (first code point << 8) | category, ascending
extern const size_t kCategoryRunCount;
extern const uint32_t
    kScriptRuns[];  // (first code point << 8) | group of scripts, ascending; group 0 is neutral
extern const size_t kScriptRunCount;

// Where parts of the `tokenizers` package follow another version of Unicode than its categories do,
// or than utf8proc does.
struct CodeRange {
  uint32_t first, last;
};
struct CodePair {
  uint32_t from, to;
};
extern const std::span<const CodeRange> kOtherNumbers, kOtherPunctuation,
    kOtherAccents;                                         // not as the category says
extern const std::span<const CodeRange> kOtherNonspacing;  // BERT's marks: not as Mn says
extern const std::span<const CodeRange> kBertDropped;      // what BERT's normalizer removes
extern const std::span<const CodeRange> kOtherExtenders;   // clusters: not as utf8proc says
extern const std::span<const CodeRange>
    kUnknownForms;  // its normal forms leave them, and compose or reorder nothing across them
extern const std::span<const CodePair> kOtherLower;
bool in_ranges(uint32_t code, std::span<const CodeRange> ascending);

// 0x110000 categories, one a code point; built at the first call, never freed.
const uint8_t* category_table();

inline bool in_mask(uint8_t category, uint32_t mask) { return (mask >> category) & 1; }
inline bool is_in(uint32_t code, uint32_t mask) { return in_mask(category_table()[code], mask); }
// \w of the Rust regex crate: alphabetic, mark, decimal digit, connector, joiner.
bool is_word(uint32_t code);

// Decodes the code point at p and moves p behind it. [p, ...) holds valid UTF-8 and is not empty.
inline uint32_t next_code(const char*& p) {
  const auto* u = reinterpret_cast<const unsigned char*>(p);
  if (u[0] < 0x80) return ++p, u[0];
  if (u[0] < 0xE0) return p += 2, (u[0] & 0x1Fu) << 6 | (u[1] & 0x3Fu);
  if (u[0] < 0xF0) return p += 3, (u[0] & 0x0Fu) << 12 | (u[1] & 0x3Fu) << 6 | (u[2] & 0x3Fu);
  return p += 4, (u[0] & 0x07u) << 18 | (u[1] & 0x3Fu) << 12 | (u[2] & 0x3Fu) << 6 | (u[3] & 0x3Fu);
}
inline uint32_t code_at(const char* p) { return next_code(p); }
// Bytes of the character that starts with `lead`.
inline size_t utf8_length(unsigned char lead) {
  return lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
}
// The start of the character before p; p is above the start of the text.
inline const char* previous_char(const char* p) {
  do --p;
  while ((static_cast<unsigned char>(*p) & 0xC0) == 0x80);
  return p;
}
void append_utf8(std::string& out, uint32_t code);

bool valid_utf8(std::string_view text);
// Length of the longest well-formed character or maximal invalid part at the start of `text`, and
// which of the two it is. A part that more bytes could complete is reported as incomplete.
struct Utf8Step {
  size_t bytes;
  enum { valid, invalid, incomplete } kind;
};
Utf8Step utf8_step(std::string_view text);
// Each maximal invalid part becomes U+FFFD: what Python's errors="replace" and Rust's
// from_utf8_lossy do.
std::string repair_utf8(std::string_view text);

// GPT-2's printable alphabet for bytes: byte -> code point, and back (-1 when the code point stands
// for no byte).
uint32_t byte_to_code(uint8_t byte);
int code_to_byte(uint32_t code);
void append_byte_mapped(std::string& out, std::string_view bytes);
// The bytes that a byte-mapped token stands for; false when it holds a character outside the
// alphabet.
bool unmap_bytes(std::string_view token, std::string& out);

}  // namespace supersonic::text
