// Sources: a constant, and 0, 1, 2, … along the last dimension.
#pragma once
#include "ops/helpers.h"

namespace supersonic {

Tensor iota(std::int64_t n, DType dtype, Where where = Where::current());

struct Fill {
  double value;
  std::int32_t dtype;
  std::int32_t dims[kMaxRank];  // -1: unused
  static void infer(Infer& i) {
    i.inputs(0);
    const auto& a = i.attrs.as<Fill>();
    Shape s;
    while (s.rank < kMaxRank && a.dims[s.rank] >= 0) {
      s.dims[s.rank] = a.dims[s.rank];
      ++s.rank;
    }
    i.output(s, static_cast<DType>(a.dtype));
  }
};
OP(Fill);

struct Iota {
  std::int64_t n;
  std::int64_t dtype;
  static void infer(Infer& i) {
    i.inputs(0);
    i.output(Shape{i.attrs.as<Iota>().n}, static_cast<DType>(i.attrs.as<Iota>().dtype));
  }
};
OP(Iota);

}  // namespace supersonic
