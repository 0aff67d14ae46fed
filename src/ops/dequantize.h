// A quantized matrix as numbers: what its format's decode() says.
#pragma once
#include "ops/helpers.h"

namespace supersonic {

Tensor dequantize(const Tensor& w, DType dtype, Where where = Where::current());  // a dense matrix is cast

struct Dequantize {
  std::int64_t dtype;
  static void infer(Infer& i) {
    i.inputs(1);
    i.check(i.spec(0).format, "takes a quantized matrix");
    i.output(i.shape(0), static_cast<DType>(i.attrs.as<Dequantize>().dtype));
  }
  static Grads backward(const Dequantize&, const BackwardArgs&) { return {}; }  // quantized weights are frozen
};
OP(Dequantize);

}  // namespace supersonic
