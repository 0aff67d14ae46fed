// Any bytes as tokenizer.json: either an Error that says why, or a tokenizer that encodes and decodes without harm.
#include <cstdint>
#include <string_view>

#include "core/error.h"
#include "text/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace supersonic;
  try {
    const std::string_view json(reinterpret_cast<const char*>(data), size);
    const auto tokenizer = text::Tokenizer::from_json(json);
    for (const std::string_view sample : {std::string_view("Hello  world's 123 \xC3\xA9\xF0\x9F\x98\x80\n<s>a b"), json.substr(0, 256)}) {
      const auto ids = tokenizer.encode(sample, {.add_special = true, .parse_special = true});
      (void)tokenizer.decode(ids);
      text::StreamDecoder stream(tokenizer);
      for (const int32_t id : ids) (void)stream.push(id);
      (void)stream.finish();
      const text::TextSpan spans[] = {{sample.substr(0, 9), true}, {sample.substr(9), false}};
      (void)tokenizer.encode_spans(spans);
    }
    (void)to_hf_json(tokenizer);
    (void)to_gguf_vocab(tokenizer);
  } catch (const Error&) {
  }
  return 0;
}
