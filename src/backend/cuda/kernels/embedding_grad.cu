// Two kernels. The first sorts the tokens by id, stable, by counting: a token's place is the number
// of smaller ids and of equal ones before it; ids pass through shared memory, and every thread of a
// block reads the same one at a time. That is tokens² comparisons: 15 µs for 8,192. In the second,
// a block has the run of tokens that begins at its place, if one does, and a piece of the columns:
// it adds the run's rows of dy, whose places the run's threads look up 32 at a time. Limit: the
// memory, one read of dy, and a read and write of rows.
#include "backend/cuda/kernels/embedding_grad.h"

#include "backend/cuda/kernels/device.cuh"
#include "backend/cuda/kernels/fault.h"

namespace supersonic::cuda {
namespace {

constexpr int kThreads = 256;

// order (tokens): which token is at a place; sorted (tokens): its id.
__global__ void __launch_bounds__(kThreads)
    sort_kernel(const std::int32_t* ids, int tokens, std::int32_t* order, std::int32_t* sorted) {
  __shared__ std::int32_t some[kThreads];
  const int token = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
  const std::int32_t id = token < tokens ? ids[token] : 0;
  int place = 0;
  for (int base = 0; base < tokens; base += kThreads) {
    __syncthreads();
    const int other = base + static_cast<int>(threadIdx.x);
    some[threadIdx.x] = other < tokens ? ids[other] : INT32_MAX;
    __syncthreads();
#pragma unroll 16
    for (int k = 0; k < kThreads; ++k) place += some[k] < id || (some[k] == id && base + k < token);
  }
  if (token >= tokens) return;
  order[place] = token;
  sorted[place] = id;
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    add_kernel(const T* dy, std::int64_t d, int tokens, const std::int32_t* order,
               const std::int32_t* sorted, std::int64_t rows, float* table) {
  const int begin = static_cast<int>(blockIdx.x), lane = static_cast<int>(threadIdx.x) % 32;
  const std::int32_t id = sorted[begin];
  if ((begin > 0 && sorted[begin - 1] == id) || id < 0 || id >= rows) return;
  const std::int64_t column = std::int64_t{blockIdx.y} * kThreads + threadIdx.x;
  const bool inside = column < d;
  float sum = inside ? table[id * d + column] : 0.0f;
  for (int first = begin; first < tokens; first += 32) {
    const int at = first + lane;
    const unsigned same = __ballot_sync(0xffffffffu, at < tokens && sorted[at] == id);
    const int mine = at < tokens ? order[at] : 0;
    const int count = __popc(same);  // ids are sorted: a run is whole
    for (int k = 0; k < count; ++k) {
      const std::int64_t token = __shfl_sync(0xffffffffu, mine, k);
      if (inside) sum += to_float(dy[token * d + column]);
    }
    if (count < 32) break;
  }
  if (inside) table[id * d + column] = sum;
}

}  // namespace

std::size_t embedding_grad_workspace(std::int64_t tokens) {
  return static_cast<std::size_t>(tokens) * 2 * sizeof(std::int32_t);
}

void embedding_grad(const EmbeddingGradCall& c, void* workspace, cudaStream_t stream) {
  if (c.tokens == 0) return;
  auto* order = static_cast<std::int32_t*>(workspace);
  std::int32_t* sorted = order + c.tokens;
  const int tokens = static_cast<int>(c.tokens);
  sort_kernel<<<static_cast<unsigned>(ceil_div(c.tokens, kThreads)), kThreads, 0, stream>>>(
      c.ids, tokens, order, sorted);
  check_launch("embedding_grad: sort");
  const dim3 grid(static_cast<unsigned>(c.tokens), static_cast<unsigned>(ceil_div(c.d, kThreads)));
  auto launch = [&](auto* dy) {
    add_kernel<<<grid, kThreads, 0, stream>>>(dy, c.d, tokens, order, sorted, c.rows, c.table);
  };
  c.type == DType::f32 ? launch(static_cast<const float*>(c.dy))
                       : launch(static_cast<const __nv_bfloat16*>(c.dy));
  check_launch("embedding_grad: add");
}

}  // namespace supersonic::cuda
