// Any bytes are a safetensors file or an Error; what parses is read to the last byte of data.
#include <cstddef>
#include <cstdint>
#include <span>

#include "core/error.h"
#include "io/safetensors.h"

using namespace supersonic;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  volatile std::size_t sum = 0;
  try {
    const auto file =
        io::SafeTensors::parse(std::as_bytes(std::span(data, size)), "fuzz.safetensors");
    for (const auto& t : file.tensors()) {
      for (const auto b : t.data) sum = sum + std::to_integer<unsigned>(b);
      if (t.readable && file.get(t.name).data.size() !=
                            static_cast<std::size_t>(t.shape.numel()) * size_of(t.dtype))
        __builtin_trap();  // a tensor whose bytes are not its shape
    }
  } catch (const Error&) {
  }
  return 0;
}
