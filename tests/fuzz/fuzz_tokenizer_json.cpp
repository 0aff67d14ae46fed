// Any bytes as tokenizer.json, and as one of the files of a folder that has none: either an Error
// that says why, or a tokenizer that encodes and decodes without harm.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "core/error.h"
#include "text/tokenizer.h"

namespace {

using namespace supersonic;

// In the place of one file beside good ones.
void try_folder(const std::string& bytes) {
  text::HfVocabFiles good{
      .vocab = R"({"a": 0, "b": 1, "ab": 2, "\u0120": 3, "\u0120a": 4, "<s>": 5})",
      .merges = "#version: 0.2\na b\n\xC4\xA0 a\n",
      .config = R"({"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<s>"})",
      .added_tokens = {},
      .special_tokens_map = {}};
  for (std::string text::HfVocabFiles::*file :
       {&text::HfVocabFiles::vocab, &text::HfVocabFiles::merges, &text::HfVocabFiles::config,
        &text::HfVocabFiles::added_tokens, &text::HfVocabFiles::special_tokens_map})
    try {
      text::HfVocabFiles files = good;
      files.*file = bytes;
      const auto tokenizer = text::Tokenizer::from_vocab(files, "folder");
      const auto ids = tokenizer.encode("ab  a <s>b \xC3\xA9", {.parse_special = true});
      (void)tokenizer.decode(ids);
      (void)to_hf_json(tokenizer);
    } catch (const Error&) {
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try_folder({reinterpret_cast<const char*>(data), size});
  try {
    const std::string_view json(reinterpret_cast<const char*>(data), size);
    const auto tokenizer = text::Tokenizer::from_json(json);
    for (const std::string_view sample :
         {std::string_view("Hello  world's 123 \xC3\xA9\xF0\x9F\x98\x80\n<s>a b"),
          json.substr(0, 256)}) {
      const auto ids = tokenizer.encode(sample, {.add_special = true, .parse_special = true});
      (void)tokenizer.decode(ids);
      text::StreamDecoder stream(tokenizer);
      for (const int32_t id : ids) (void)stream.push(id);
      (void)stream.finish();
      const size_t cut = std::min<size_t>(9, sample.size());
      const text::TextSpan spans[] = {{0, cut, true}, {cut, sample.size(), false}};
      text::Encoded encoded;
      tokenizer.encode_spans(sample, spans, encoded);
      if (encoded.ids.size() != encoded.ends.size()) std::abort();
      if (!std::is_sorted(encoded.ends.begin(), encoded.ends.end())) std::abort();
      if (!encoded.ends.empty() && encoded.ends.back() != sample.size()) std::abort();
    }
    (void)to_hf_json(tokenizer);
    (void)to_gguf_vocab(tokenizer);
  } catch (const Error&) {
  }
  return 0;
}
