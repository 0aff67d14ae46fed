// Row order of rotary projections; see the header.
#include "io/qk_layout.h"

#include <cstring>

#include "core/error.h"

namespace supersonic::io {

std::vector<std::int64_t> qk_row_order(std::int64_t heads, std::int64_t head_dim, QkLayout target) {
  CHECK(heads > 0 && head_dim > 0 && head_dim % 2 == 0,
        "q/k rows: {} heads of {} rows cannot be paired", heads, head_dim);
  std::vector<std::int64_t> order(static_cast<std::size_t>(heads * head_dim));
  const std::int64_t half = head_dim / 2;
  for (std::int64_t h = 0; h < heads; ++h)
    for (std::int64_t j = 0; j < half; ++j)
      for (std::int64_t part = 0; part < 2; ++part) {
        const std::int64_t split = h * head_dim + part * half + j,
                           woven = h * head_dim + 2 * j + part;
        if (target == QkLayout::interleaved)
          order[static_cast<std::size_t>(woven)] = split;
        else
          order[static_cast<std::size_t>(split)] = woven;
      }
  return order;
}

void gather_rows(std::span<const std::byte> from, std::span<std::byte> to, std::size_t row_bytes,
                 std::span<const std::int64_t> order) {
  CHECK(from.size() == order.size() * row_bytes && to.size() == from.size(),
        "gather_rows: {} rows of {} bytes do not make {} and {} bytes", order.size(), row_bytes,
        from.size(), to.size());
  for (std::size_t i = 0; i < order.size(); ++i)
    std::memcpy(to.data() + i * row_bytes,
                from.data() + static_cast<std::size_t>(order[i]) * row_bytes, row_bytes);
}

void to_qk_layout(std::vector<float>& matrix, std::int64_t heads, std::int64_t head_dim,
                  QkLayout target) {
  const auto order = qk_row_order(heads, head_dim, target);
  CHECK(matrix.size() % order.size() == 0, "q/k rows: {} values are not {} rows", matrix.size(),
        order.size());
  std::vector<float> result(matrix.size());
  gather_rows(std::as_bytes(std::span(matrix)), std::as_writable_bytes(std::span(result)),
              matrix.size() / order.size() * sizeof(float), order);
  matrix = std::move(result);
}

}  // namespace supersonic::io
