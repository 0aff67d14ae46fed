#include "ops/accumulate.h"

namespace supersonic {

void accumulate(const Tensor& target, const Tensor& x, Where where) { record(Accumulate{}, {target, x}, where); }
void assign(const Tensor& target, const Tensor& x, Where where) { record(Assign{}, {target, x}, where); }

}  // namespace supersonic
