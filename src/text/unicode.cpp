// Category table, UTF-8 repair and the byte alphabet of byte-level BPE.
#include "text/unicode.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <iterator>

namespace supersonic::text {
namespace {

struct CategoryTable {
  uint8_t* at;
  CategoryTable() {
    static uint8_t table[0x110000];  // zero pages stay unmapped where nothing is assigned
    at = table;
    for (size_t i = 0; i < kCategoryRunCount; ++i) {
      const uint32_t begin = kCategoryRuns[i] >> 8, category = kCategoryRuns[i] & 0xFF;
      const uint32_t end = i + 1 < kCategoryRunCount ? kCategoryRuns[i + 1] >> 8 : 0x110000;
      if (category != Cn && category != Co)
        std::memset(at + begin, static_cast<int>(category), end - begin);
    }
    for (uint32_t code : {0x9, 0xA, 0xB, 0xC, 0xD, 0x85}) at[code] = Cw;
  }
};

struct ByteAlphabet {
  std::array<uint16_t, 256> code;
  std::array<int16_t, 512> byte;
  ByteAlphabet() {
    byte.fill(-1);
    uint16_t spare = 256;
    for (int b = 0; b < 256; ++b) {
      const bool printable = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
      code[b] = printable ? static_cast<uint16_t>(b) : spare++;
      byte[code[b]] = static_cast<int16_t>(b);
    }
  }
};
const ByteAlphabet& alphabet() {
  static const ByteAlphabet value;
  return value;
}

}  // namespace

const uint8_t* category_table() {
  static const CategoryTable table;
  return table.at;
}

bool in_ranges(uint32_t code, std::span<const CodeRange> ascending) {
  const auto after = std::ranges::upper_bound(ascending, code, {}, &CodeRange::first);
  return after != ascending.begin() && code <= std::prev(after)->last;
}

bool is_word(uint32_t c) {
  if (is_in(c, kLetter | kMark | category_mask(Nd, Nl, Pc))) return true;
  const bool circled = (c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) ||
                       (c >= 0x1F150 && c <= 0x1F169) || (c >= 0x1F170 && c <= 0x1F189);
  return circled || c == 0x200C || c == 0x200D;
}

void append_utf8(std::string& out, uint32_t c) {
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else if (c < 0x800) {
    out += static_cast<char>(0xC0 | c >> 6);
    out += static_cast<char>(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    out += static_cast<char>(0xE0 | c >> 12);
    out += static_cast<char>(0x80 | (c >> 6 & 0x3F));
    out += static_cast<char>(0x80 | (c & 0x3F));
  } else {
    out += static_cast<char>(0xF0 | c >> 18);
    out += static_cast<char>(0x80 | (c >> 12 & 0x3F));
    out += static_cast<char>(0x80 | (c >> 6 & 0x3F));
    out += static_cast<char>(0x80 | (c & 0x3F));
  }
}

Utf8Step utf8_step(std::string_view text) {
  const auto at = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = at(0);
  if (lead < 0x80) return {1, Utf8Step::valid};
  if (lead < 0xC2 || lead > 0xF4) return {1, Utf8Step::invalid};
  const size_t need = utf8_length(lead);
  // The second byte's range excludes overlong forms, surrogates and what lies above U+10FFFF.
  const unsigned char low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  const unsigned char high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  for (size_t i = 1; i < need; ++i) {
    if (i >= text.size()) return {i, Utf8Step::incomplete};
    if (at(i) < (i == 1 ? low : 0x80) || at(i) > (i == 1 ? high : 0xBF))
      return {i, Utf8Step::invalid};
  }
  return {need, Utf8Step::valid};
}

bool valid_utf8(std::string_view text) {
  size_t i = 0;
  while (i < text.size()) {
    uint64_t word;
    if (i + 8 <= text.size()) {
      std::memcpy(&word, text.data() + i, 8);
      if (!(word & 0x8080808080808080ull)) {
        i += 8;
        continue;
      }
    }
    const Utf8Step step = utf8_step(text.substr(i, 4));
    if (step.kind != Utf8Step::valid) return false;
    i += step.bytes;
  }
  return true;
}

std::string repair_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const Utf8Step step = utf8_step(text);
    if (step.kind == Utf8Step::valid)
      out.append(text.substr(0, step.bytes));
    else
      out += "\xEF\xBF\xBD";
    text.remove_prefix(step.bytes);
  }
  return out;
}

uint32_t byte_to_code(uint8_t byte) { return alphabet().code[byte]; }
int code_to_byte(uint32_t code) { return code < 512 ? alphabet().byte[code] : -1; }

void append_byte_mapped(std::string& out, std::string_view bytes) {
  for (const char c : bytes) append_utf8(out, byte_to_code(static_cast<uint8_t>(c)));
}

bool unmap_bytes(std::string_view token, std::string& out) {
  const char* end = token.data() + token.size();
  for (const char* p = token.data(); p < end;) {
    const int byte = code_to_byte(next_code(p));
    if (byte < 0) return false;
    out += static_cast<char>(byte);
  }
  return true;
}

}  // namespace supersonic::text
