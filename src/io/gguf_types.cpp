// The numbers of GGUF's value and tensor types, and the size of a tensor.
#include <algorithm>
#include <array>
#include <utility>

#include "core/error.h"
#include "io/checked.h"
#include "io/gguf.h"

namespace supersonic::io {

namespace {

struct Scalar {
  int ggml_type;
  DType dtype;
};
constexpr Scalar kScalars[] = {{0, DType::f32},  {1, DType::f16},  {24, DType::i8},
                               {26, DType::i32}, {27, DType::i64}, {28, DType::f64},
                               {30, DType::bf16}};

// Types that the format has or had and that are not read, for messages: integers of 16 bits, blocks
// that only activations have, and layouts that were removed from GGUF.
constexpr std::pair<int, std::string_view> kNames[] = {
    {4, "q4_2"},        {5, "q4_3"},        {9, "q8_1"},       {15, "q8_k"},
    {25, "i16"},        {31, "q4_0_4_4"},   {32, "q4_0_4_8"},  {33, "q4_0_8_8"},
    {36, "iq4_nl_4_4"}, {37, "iq4_nl_4_8"}, {38, "iq4_nl_8_8"}};

}  // namespace

std::string_view name_of(GgufType type) {
  static constexpr std::string_view names[] = {"u8",  "i8",  "u16",  "i16",    "u32",
                                               "i32", "f32", "bool", "string", "array",
                                               "u64", "i64", "f64"};
  const auto i = static_cast<std::size_t>(type);
  return i < std::size(names) ? names[i] : "unknown";
}

std::size_t size_of(GgufType type) {
  static constexpr std::size_t sizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
  const auto i = static_cast<std::size_t>(type);
  return i < std::size(sizes) ? sizes[i] : 0;
}

std::optional<DType> scalar_of_ggml(int ggml_type) {
  for (const auto& s : kScalars)
    if (s.ggml_type == ggml_type) return s.dtype;
  return std::nullopt;
}

int ggml_of_scalar(DType dtype) {
  for (const auto& s : kScalars)
    if (s.dtype == dtype) return s.ggml_type;
  fail(ErrorKind::failure, "a GGUF file cannot hold {} tensors; convert to f32, f16 or bf16",
       name_of(dtype));
}

std::string ggml_type_name(int ggml_type) {
  if (const auto scalar = scalar_of_ggml(ggml_type)) return std::string(name_of(*scalar));
  for (const auto& [type, name] : kNames)
    if (type == ggml_type) return std::string(name);
  if (const Format* format = find_ggml_format(ggml_type)) return std::string(format->name);
  return fmt::format("type {}", ggml_type);
}

std::optional<std::uint64_t> tensor_bytes(const Shape& shape, DType dtype, const Format* format) {
  std::uint64_t units = 1;
  for (int i = 0; i < shape.rank; ++i) {
    auto dim = static_cast<std::uint64_t>(shape.dims[i]);
    if (shape.dims[i] < 0) return std::nullopt;
    if (format && i == shape.rank - 1) {
      if (dim % static_cast<std::uint64_t>(format->block)) return std::nullopt;
      dim /= static_cast<std::uint64_t>(format->block);
    }
    const auto product = checked_mul(units, dim);
    if (!product) return std::nullopt;
    units = *product;
  }
  if (format && shape.rank == 0) return std::nullopt;
  return checked_mul(units,
                     format ? static_cast<std::uint64_t>(format->block_bytes) : size_of(dtype));
}

}  // namespace supersonic::io
