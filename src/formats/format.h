// A weight format is data: one static record per format, found by name or by GGUF type number.
//
// A quantized matrix W (rows, cols) = (out features, in features) is stored as up to four planes of bytes. Plane 0 holds
// the codes; a GGUF format has that plane alone, row after row, each row a whole number of blocks. NF4 with double
// quantization has codes, 8-bit absmax, the absmax's own absmax, and one offset, over the flattened matrix.
// decode() is the format's meaning; faster decoders are tested against it.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace supersonic {

constexpr int kMaxPlanes = 4;

// Where the planes of one matrix lie. Not owning.
struct Planes {
  const void* data[kMaxPlanes] = {};
};

struct Format {
  std::string_view name;  // "q4_1", "nf4"
  int ggml_type = -1;     // type number in a GGUF file; -1: not a GGUF format
  int block = 1;          // weights per block, along the last dimension
  int block_bytes = 0;    // bytes of plane 0 per block
  bool row_blocks = true; // true: cols must be a multiple of block, a block never crosses a row
  int planes = 1;

  // Bytes of plane p for a matrix of rows x cols.
  std::size_t (*plane_bytes)(const Format& self, int plane, std::int64_t rows, std::int64_t cols) = nullptr;
  // Decodes `count` weights starting at flat element `first` (row-major over rows x cols; a multiple of block).
  void (*decode)(const Planes& planes, std::int64_t first, std::int64_t count, float* out) = nullptr;
  // Encodes rows x cols weights into the planes (each of plane_bytes); null: this format is read only.
  void (*encode)(const float* w, std::int64_t rows, std::int64_t cols, void* const* planes) = nullptr;
};

const Format* find_format(std::string_view name);  // null when unknown
const Format* find_ggml_format(int ggml_type);     // null when unknown or not quantized
std::span<const Format* const> all_formats();
std::size_t total_bytes(const Format& format, std::int64_t rows, std::int64_t cols);

}  // namespace supersonic
