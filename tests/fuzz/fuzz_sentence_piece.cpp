// Any bytes as a SentencePiece tokenizer.model: either an Error that says why, or a tokenizer that
// encodes and decodes without harm.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "core/error.h"
#include "text/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace supersonic;
  try {
    const std::string_view bytes(reinterpret_cast<const char*>(data), size);
    const auto tokenizer = text::Tokenizer::from_sentence_piece(bytes);
    for (const std::string_view sample :
         {std::string_view("Hello  world's 123 \xC3\xA9\xF0\x9F\x98\x80\r\n<s>a b"),
          bytes.substr(0, 256)}) {
      const auto ids = tokenizer.encode(sample, {.add_special = true, .parse_special = true});
      const std::string decoded = tokenizer.decode(ids);
      text::StreamDecoder stream(tokenizer);
      for (const int32_t id : ids) (void)stream.push(id);
      (void)stream.finish();
      const text::TextSpan spans[] = {{0, sample.size(), false}};
      text::Encoded encoded;
      tokenizer.encode_spans(sample, spans, encoded);
      if (encoded.ids.size() != encoded.ends.size()) std::abort();
    }
    (void)to_hf_json(tokenizer);
  } catch (const Error&) {
  }
  return 0;
}
