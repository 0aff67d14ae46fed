// A block a head of a token: a query's, a key's or a value's. The angle is that of rope.cu, in
// fp64. Bound by its launch: a token's heads are some kilobytes.
#include "backend/cuda/kernels/kv_step.h"

#include "backend/cuda/kernels/cache_rows.cuh"
#include "backend/cuda/kernels/overlap.cuh"
#include "backend/cuda/kernels/rotary.cuh"

namespace supersonic::cuda {
namespace {

constexpr int kThreads = 64;

__device__ inline float rounded(float x, DType type) {
  return type == DType::bf16 ? __bfloat162float(__float2bfloat16_rn(x)) : x;
}

__global__ void __launch_bounds__(kThreads)
    step_kernel(const __grid_constant__ KvStepCall a, FaultSink faults) {
  __shared__ float coded[kMostCodedHead];
  const std::int64_t token = blockIdx.y;
  int head = static_cast<int>(blockIdx.x);
  let_next_start();
  after_previous();
  const std::int64_t first = *a.at;
  const bool inside = first >= 0 && first + a.tokens <= a.capacity;
  const void* from = a.q;
  void* to = a.y;
  DType type = a.type;
  CacheCodes codes = CacheCodes::none;
  int heads = a.heads;
  std::int64_t row = token;
  bool turns = true;
  if (head >= a.heads) {
    head -= a.heads, heads = a.groups, row = first + token;
    const bool value = head >= a.groups;
    if (value) head -= a.groups, turns = false;
    from = value ? a.v : a.k, to = value ? a.v_cache : a.k_cache;
    type = value ? a.v_type : a.k_type;
    codes = value ? a.v_codes : a.k_codes;
    if (!inside) {
      if (head == 0 && value && token == 0 && threadIdx.x == 0)
        report_fault(faults, FaultKind::cache_row, first, a.tokens, a.capacity);
      return;
    }
  }
  if (!to) return;
  const std::int64_t x = (token * heads + head) * a.d, y = (row * heads + head) * a.d;
  const int turned = turns ? 2 * a.pairs : 0;
  auto keep = [&](int i, float value) {
    if (codes == CacheCodes::none)
      store_float(to, type, y + i, value);
    else
      coded[i] = value;
  };
  for (int i = threadIdx.x; 2 * i < turned; i += kThreads) {
    float s, c;
    sincosf(reduced_angle(static_cast<double>(a.positions[token]), a.inv_freq[i]), &s, &c);
    s *= a.factor, c *= a.factor;
    const int u = a.interleaved ? 2 * i : i, v = u + (a.interleaved ? 1 : a.pairs);
    const float xu = load_float(from, a.type, x + u), xv = load_float(from, a.type, x + v);
    // Keys are rounded to the type of the activations first, as where they turn on their own.
    keep(u, rounded(xu * c - xv * s, a.type));
    keep(v, rounded(xu * s + xv * c, a.type));
  }
  for (int i = turned + static_cast<int>(threadIdx.x); i < a.d; i += kThreads)
    keep(i, load_float(from, a.type, x + i));
  if (codes == CacheCodes::none) return;
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < a.d; i += kThreads)
    encode_number(codes, to, y + i, coded[i]);
}

}  // namespace

void kv_step(const KvStepCall& a, FaultSink faults, cudaStream_t stream) {
  if (a.tokens == 0) return;
  const dim3 grid(static_cast<unsigned>(a.heads + 2 * a.groups), static_cast<unsigned>(a.tokens));
  launch_overlapped("kv_step", step_kernel, Launch{grid, kThreads}, stream, a, faults);
}

}  // namespace supersonic::cuda
