// Any bytes are a GGUF file or an Error; what parses is read to the last string and the last byte
// of data, and decoded. A second "GGUF" in the bytes begins a second part of a split model.
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

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

std::size_t read_tensor(const io::GgufTensor& t) {
  std::size_t sum = 0;
  for (const auto b : t.data) sum += std::to_integer<unsigned>(b);
  if (!t.format || reinterpret_cast<std::uintptr_t>(t.data.data()) % 2) return sum;
  float block[256];
  const auto blocks = t.data.size() / static_cast<std::size_t>(t.format->block_bytes);
  t.format->decode(Planes{{t.data.data()}}, static_cast<std::int64_t>(blocks - 1) * t.format->block,
                   t.format->block, block);
  return sum + (block[0] > 0);
}

void read_file(const io::GgufFile& file) {
  volatile std::size_t sum = 0;
  for (const auto& v : file.values()) sum = sum + read_value(file, v);
  for (const auto& t : file.tensors()) {
    sum = sum + read_tensor(t);
    (void)file.tensor(t.name);
  }
  tolerate([&] { (void)io::model_config_from_gguf(file); });
  tolerate([&] { (void)io::read_gguf_adapter(file); });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  tolerate([&] { read_file(io::GgufFile::parse(bytes, "fuzz.gguf")); });
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const std::size_t second = size > 4 ? text.find("GGUF", 4) : text.npos;
  if (second == text.npos) return 0;
  tolerate([&] {
    std::vector<io::GgufFile> parts;
    parts.push_back(io::GgufFile::parse(bytes.first(second), "fuzz-00001-of-00002.gguf"));
    parts.push_back(io::GgufFile::parse(bytes.subspan(second), "fuzz-00002-of-00002.gguf"));
    read_file(io::GgufFile::join(std::move(parts)));
  });
  return 0;
}
