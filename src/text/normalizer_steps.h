// What the files that implement normalizers share: texts with or without origins, and the steps
// that are made of other steps.
#pragma once
#include <array>
#include <string>
#include <string_view>

#include "text/origin.h"
#include "text/tokenizer_spec.h"
#include "text/unicode.h"

namespace supersonic::text {

inline Stretch whole(const std::string& text, const Origins* origins) {
  return {text, origins ? origins->data() : nullptr};
}

inline void finish(Rewriter& out, std::string& text, Origins* origins) {
  Origins unused;
  out.finish(text, origins ? *origins : unused);
}

// Rewrites character by character: map(code, out) appends what the character becomes.
template <class Map>
void each_character(std::string& text, Origins* origins, Map map) {
  std::string piece;
  const char *begin = text.data(), *end = begin + text.size();
  if (!origins) {
    piece.reserve(text.size() + text.size() / 8);
    for (const char* p = begin; p < end;) map(next_code(p), piece);
    text = std::move(piece);
    return;
  }
  Rewriter out(whole(text, origins));
  out.reserve(text.size());
  for (const char* p = begin; p < end;) {
    const size_t at = p - begin;
    piece.clear();
    map(next_code(p), piece);
    const size_t stop = p - begin;
    if (piece == std::string_view(text).substr(at, stop - at))
      out.copy(at, stop);
    else
      out.replace(at, stop, piece);
  }
  finish(out, text, origins);
}

// options: UTF8PROC_COMPOSE or UTF8PROC_DECOMPOSE, with UTF8PROC_COMPAT or without.
void unicode_step(std::string& text, Origins* origins, int options);
void lower_step(std::string& text, Origins* origins);
// What BERT's steps make of each ASCII character; 0x80: nothing.
using AsciiTable = std::array<unsigned char, 128>;
AsciiTable bert_table(const NormalizerStep& spec);
void bert_step(std::string& text, Origins* origins, const NormalizerStep& spec,
               const AsciiTable& table);
void nmt_step(std::string& text, Origins* origins);

}  // namespace supersonic::text
