// Element by element through memcpy: file data need not be aligned.
#include "io/float_convert.h"

#include <cstring>

#include "core/error.h"

namespace supersonic::io {

namespace {

template <class T>
std::vector<float> decode(std::span<const std::byte> data) {
  std::vector<float> result(data.size() / sizeof(T));
  for (std::size_t i = 0; i < result.size(); ++i) {
    T value;
    std::memcpy(static_cast<void*>(&value), data.data() + i * sizeof(T), sizeof(T));
    result[i] = static_cast<float>(value);
  }
  return result;
}

template <class T>
std::vector<std::byte> encode(std::span<const float> values) {
  std::vector<std::byte> result(values.size() * sizeof(T));
  for (std::size_t i = 0; i < values.size(); ++i) {
    const T value(values[i]);
    std::memcpy(result.data() + i * sizeof(T), &value, sizeof(T));
  }
  return result;
}

}  // namespace

std::vector<float> to_floats(std::span<const std::byte> data, DType dtype) {
  switch (dtype) {
    case DType::f32:
      return decode<float>(data);
    case DType::f16:
      return decode<f16>(data);
    case DType::bf16:
      return decode<bf16>(data);
    case DType::f64:
      return decode<double>(data);
    default:
      fail(ErrorKind::failure, "{} is not a float type", name_of(dtype));
  }
}

std::vector<std::byte> from_floats(std::span<const float> values, DType dtype) {
  switch (dtype) {
    case DType::f32:
      return encode<float>(values);
    case DType::f16:
      return encode<f16>(values);
    case DType::bf16:
      return encode<bf16>(values);
    case DType::f64:
      return encode<double>(values);
    default:
      fail(ErrorKind::failure, "{} is not a float type", name_of(dtype));
  }
}

}  // namespace supersonic::io
