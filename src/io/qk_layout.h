// The two orders in which rotary q and k rows are stored. Hugging Face keeps the halves of each
// rotated pair apart (row j pairs with row j + head_dim/2 of its head); a GGUF file of architecture
// llama interleaves them (2j with 2j + 1). Rows move whole, so this works on quantized rows as on
// floats, and exactly. Applies to weights, to biases (one element a row), and to LoRA's B; qwen2
// files are half-split in both worlds.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace supersonic::io {

enum class QkLayout { half_split, interleaved };

// order[i]: the row of the other layout that becomes row i in the target layout. heads * head_dim
// entries.
std::vector<std::int64_t> qk_row_order(std::int64_t heads, std::int64_t head_dim, QkLayout target);
// to[i] = from[order[i]], rows of row_bytes; the two must not overlap.
void gather_rows(std::span<const std::byte> from, std::span<std::byte> to, std::size_t row_bytes,
                 std::span<const std::int64_t> order);
// matrix (heads * head_dim, cols) row-major, rearranged in place.
void to_qk_layout(std::vector<float>& matrix, std::int64_t heads, std::int64_t head_dim,
                  QkLayout target);

}  // namespace supersonic::io
