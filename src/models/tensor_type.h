// What the numbers of a tensor are stored as: a scalar type, or a format.
#pragma once
#include <string>

#include "core/dtype.h"
#include "formats/format.h"

namespace supersonic::models {

struct TensorType {
  DType dtype = DType::f32;
  const Format* format = nullptr;  // with DType::quant
  bool operator==(const TensorType&) const = default;
};
inline std::string name_of(const TensorType& type) {
  return std::string(type.format ? type.format->name : supersonic::name_of(type.dtype));
}

}  // namespace supersonic::models
