#include "ops/kv_append.h"

namespace supersonic {

void kv_append(const Tensor& cache, const Tensor& x, const Tensor& at, Where where) { record(KvAppend{}, {cache, x, at}, where); }

}  // namespace supersonic
