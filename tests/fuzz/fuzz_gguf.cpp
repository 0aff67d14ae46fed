// Any bytes are a GGUF file or an Error; what parses is read to the last string and the last byte
// of data.
#include <cstddef>
#include <cstdint>
#include <span>

#include "core/error.h"
#include "io/adapter.h"
#include "io/gguf.h"
#include "io/model_config.h"

using namespace supersonic;

namespace {

template <class F>
void tolerate(F&& f) {
  try {
    f();
  } catch (const Error&) {
  }
}

std::size_t read_value(const io::GgufFile& file, const io::GgufValue& v) {
  std::size_t sum = 0;
  tolerate([&] { sum += file.get_u32(v.key); });
  tolerate([&] { sum += file.get_string(v.key).size(); });
  tolerate([&] { sum += file.get_bool(v.key, false); });
  tolerate([&] { sum += file.get_float(v.key) > 0; });
  tolerate([&] { sum += file.get_floats(v.key).size(); });
  tolerate([&] { sum += file.get_per_layer(v.key, 4).size(); });
  tolerate([&] {
    for (const auto s : file.get_strings(v.key))
      for (const char c : s) sum += static_cast<unsigned char>(c);
  });
  return sum;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  volatile std::size_t sum = 0;
  tolerate([&] {
    const auto file = io::GgufFile::parse(std::as_bytes(std::span(data, size)), "fuzz.gguf");
    for (const auto& v : file.values()) sum = sum + read_value(file, v);
    for (const auto& t : file.tensors())
      for (const auto b : t.data) sum = sum + std::to_integer<unsigned>(b);
    tolerate([&] { (void)io::model_config_from_gguf(file); });
    tolerate([&] { (void)io::read_gguf_adapter(file); });
  });
  return 0;
}
