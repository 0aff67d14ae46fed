// A weight format is data: one static record per format, found by name or by GGUF type number.
//
// A quantized matrix W (rows, cols) = (out features, in features) is stored as up to four planes of
// bytes. Plane 0 holds the codes; a GGUF format has that plane alone, row after row, each row a
// whole number of blocks. NF4 with double quantization has codes, 8-bit absmax, the absmax's own
// absmax, and one offset, over the flattened matrix. decode() is the format's meaning; faster
// decoders are tested against it. How to add one: docs/adding_a_format.md.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace supersonic {

constexpr int kMaxPlanes = 4;

// Where the planes of one matrix lie. Not owning. Plane 0 starts at an even address, the others at
// a multiple of four.
struct Planes {
  const void* data[kMaxPlanes] = {};
};

struct Format {
  std::string_view name;   // "q4_1", "nf4"
  int ggml_type = -1;      // type number in a GGUF file; -1: not a GGUF format
  int block = 1;           // weights per block, along the last dimension
  int block_bytes = 0;     // bytes of plane 0 per block
  bool row_blocks = true;  // true: cols must be a multiple of block, a block never crosses a row
  int planes = 1;
  // What llama.cpp writes instead where cols is not a multiple of block; empty: f16.
  std::string_view fallback = "";

  // Bytes of plane p for a matrix of rows x cols. Throws Error(bad_file) for sizes that this format
  // cannot have.
  std::size_t (*plane_bytes)(const Format& self, int plane, std::int64_t rows,
                             std::int64_t cols) = nullptr;
  // Decodes `count` weights starting at flat element `first` (row-major over rows x cols; a
  // multiple of block; count need not be one). Any bytes decode without error.
  void (*decode)(const Planes& planes, std::int64_t first, std::int64_t count,
                 float* out) = nullptr;
  // Encodes rows x cols weights into the planes (each of plane_bytes); null: this format is read
  // only. Throws Error for a weight that is not finite or, where scales are 16-bit, above 65504.
  // Where row_blocks, matrices may be encoded in any pieces of whole rows, by several threads.
  void (*encode)(const float* w, std::int64_t rows, std::int64_t cols,
                 void* const* planes) = nullptr;
};

const Format* find_format(std::string_view name);  // null when unknown
const Format* find_ggml_format(int ggml_type);     // null when unknown or not quantized
std::span<const Format* const> all_formats();    // of weights
std::span<const Format* const> cache_formats();  // of keys and values: q8_0 and fp8
std::size_t total_bytes(const Format& format, std::int64_t rows, std::int64_t cols);
// The format in which rows of `cols` weights are stored when `format` was asked for, by llama.cpp's
// rules: itself where the blocks divide the row, else q4_k -> q5_0, q6_k -> q8_0; null: none fits,
// use f16. Throws if format is read only.
const Format* writable_for(const Format& format, std::int64_t cols);

}  // namespace supersonic
