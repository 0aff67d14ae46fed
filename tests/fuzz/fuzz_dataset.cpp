// Any bytes as a line of training data, through detection, rendering, masking and packing.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "core/error.h"
#include "text/dataset_pack.h"
#include "text/jinja_json.h"

using namespace supersonic;

static void encode_bytes(std::string_view text, const std::vector<text::TextSpan>&,
                         text::Encoded& out) {
  for (std::size_t i = 0; i < text.size(); ++i) {
    out.ids.push_back(static_cast<unsigned char>(text[i]));
    out.ends.push_back(static_cast<std::uint32_t>(i + 1));
  }
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const text::ChatTemplate chat(
      "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% if m.tool_calls %}{{ m.tool_calls | "
      "tojson }}{% endif %}</s>\n{% endfor %}"
      "{% if add_generation_prompt %}<assistant>{% endif %}",
      "fuzz");
  try {
    text::Heap heap;
    const text::Value row = text::parse_json({reinterpret_cast<const char*>(data), size}, heap);
    const text::Sample sample = text::normalize_row(row, text::detect_layout(row), heap);
    text::TokenizerView tokenizer;
    tokenizer.encode = encode_bytes;
    text::RenderOptions options;
    options.chat_template = &chat;
    options.seq_len = 64;
    std::vector<text::Tokens> tokens;
    text::tokenize_sample(sample, tokenizer, options, tokens);
    const text::DataReport report = text::check_data(tokens, {}, {.seq_len = 64});
    if (report.trained > report.tokens) __builtin_trap();
  } catch (const Error&) {
  }
  return 0;
}
