// Any bytes as config.json, generation_config.json, tokenizer_config.json and adapter_config.json:
// a value or an Error. A model configuration that is accepted can be written and read again.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "core/error.h"
#include "io/adapter.h"
#include "io/hf_config.h"

using namespace supersonic;

namespace {

template <class F>
void tolerate(F&& f) {
  try {
    f();
  } catch (const Error&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  tolerate([&] { (void)io::generation_config_from_json(text, "generation_config.json"); });
  tolerate([&] { (void)io::tokenizer_config_from_json(text, "tokenizer_config.json"); });
  tolerate([&] { (void)io::lora_config_from_json(text, "adapter_config.json"); });
  std::string written;
  tolerate([&] { written = io::to_config_json(io::model_config_from_json(text, "config.json")); });
  if (written.empty()) return 0;
  const auto again = io::model_config_from_json(written, "written");  // must not throw
  if (again.head_dim % 2 || again.num_attention_heads % again.num_key_value_heads) __builtin_trap();
  return 0;
}
