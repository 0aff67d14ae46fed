// The seam between text and tokens: what chat templates and data sets ask of a tokenizer.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace supersonic::text {

// A piece of text. In a trusted piece special tokens are recognised; in any other their spelling is
// plain text.
struct TextSpan {
  std::size_t begin, end;  // byte offsets in the whole text
  bool trusted;
  bool operator==(const TextSpan&) const = default;
};

struct Encoded {
  std::vector<std::int32_t> ids;
  std::vector<std::uint32_t>
      ends;  // for each id: one past its last byte in the text; ascending, last = text size
};

// Encodes `text`, whose bytes `spans` cover in order. No tokens are added that the text does not
// spell. Ordinary text that crosses a span's edge is encoded as if the edge were not there; a
// special token must lie within trusted bytes.
using EncodeSpans =
    std::function<void(std::string_view text, const std::vector<TextSpan>& spans, Encoded& out)>;

// What the data pipeline needs to know of a tokenizer.
struct TokenizerView {
  EncodeSpans encode;
  std::int32_t bos = -1, eos = -1;  // -1: none
  std::vector<std::int32_t>
      end_of_turn;  // ids that end an assistant's turn: eos, <|im_end|>, <|eot_id|>, …
  std::string bos_text, eos_text;
  bool add_bos = false;  // plain text starts with bos
  bool is_end_of_turn(std::int32_t id) const {
    for (std::int32_t e : end_of_turn)
      if (e == id) return true;
    return id == eos && eos >= 0;
  }
};

}  // namespace supersonic::text
