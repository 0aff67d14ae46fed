// BERT's normalizer (clean, cut Han apart, drop accents, lower case) and the one of SentencePiece's
// older translation models (Nmt). ASCII, which none of BERT's steps carries beyond its own
// character, goes through one table; the steps themselves see what is left.
#include <utf8proc.h>

#include "text/normalizer_steps.h"

namespace supersonic::text {
namespace {

bool is_han(uint32_t c) {
  constexpr CodeRange kHan[] = {
      {0x3400, 0x4DBF},   {0x4E00, 0x9FFF},   {0xF900, 0xFAFF},
      {0x20000, 0x2A6DF}, {0x2A700, 0x2B73F}, {0x2B740, 0x2B81F},
      {0x2B920, 0x2CEAF}, {0x2F800, 0x2FA1F}};  // the crate's: 2B820 … is missing
  return in_ranges(c, kHan);
}

void clean(uint32_t c, std::string& out) {
  if (c == ' ' || c == '\t' || c == '\n' || c == '\r')
    out += ' ';
  else if (!in_ranges(c, kBertDropped))
    append_utf8(out, is_in(c, kSpace) ? 32 : c);
}

void steps(std::string& text, Origins* origins, const NormalizerStep& spec) {
  if (spec.clean) each_character(text, origins, clean);
  if (spec.cut_han)
    each_character(text, origins, [](uint32_t c, std::string& out) {
      const bool han = is_han(c);
      if (han) out += ' ';
      append_utf8(out, c);
      if (han) out += ' ';
    });
  if (spec.drop_accents) {
    unicode_step(text, origins, UTF8PROC_DECOMPOSE);
    each_character(text, origins, [](uint32_t c, std::string& out) {
      if (is_in(c, category_mask(Mn)) == in_ranges(c, kOtherNonspacing)) append_utf8(out, c);
    });
  }
  if (spec.lower) lower_step(text, origins);
}

}  // namespace

AsciiTable bert_table(const NormalizerStep& spec) {
  AsciiTable out{};
  for (uint32_t c = 0; c < 128; ++c) {
    std::string one(1, static_cast<char>(c));
    steps(one, nullptr, spec);
    out[c] = one.empty() ? 0x80 : static_cast<unsigned char>(one[0]);
  }
  return out;
}

void bert_step(std::string& text, Origins* origins, const NormalizerStep& spec,
               const AsciiTable& table) {
  if (origins) return steps(text, origins, spec);
  std::string out, other;
  out.reserve(text.size() + 16);
  for (size_t at = 0; at < text.size();) {
    const auto byte = static_cast<unsigned char>(text[at]);
    if (byte < 128) {
      if (table[byte] < 128) out += static_cast<char>(table[byte]);
      ++at;
      continue;
    }
    size_t end = at + 1;
    while (end < text.size() && static_cast<unsigned char>(text[end]) >= 128) ++end;
    other.assign(text, at, end - at);
    steps(other, nullptr, spec);
    out += other;
    at = end;
  }
  text = std::move(out);
}

void nmt_step(std::string& text, Origins* origins) {
  each_character(text, origins, [](uint32_t c, std::string& out) {
    constexpr CodeRange kDropped[] = {{0x1, 0x8},   {0xB, 0xB},   {0xE, 0x1F},
                                      {0x7F, 0x7F}, {0x8F, 0x8F}, {0x9F, 0x9F}};
    constexpr CodeRange kSpaces[] = {{0x9, 0xA},       {0xC, 0xD},       {0x1680, 0x1680},
                                     {0x200B, 0x200F}, {0x2028, 0x2029}, {0x2581, 0x2581},
                                     {0xFEFF, 0xFEFF}, {0xFFFD, 0xFFFD}};
    if (in_ranges(c, kDropped)) return;
    append_utf8(out, in_ranges(c, kSpaces) ? ' ' : c);
  });
}

}  // namespace supersonic::text
