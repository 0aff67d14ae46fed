#include "backend/cuda/kernels/rope.h"

#include "backend/cuda/kernels/fault.h"
#include "backend/cuda/kernels/rotary.cuh"
#include "backend/cuda/kernels/scalar.h"

namespace supersonic::cuda {
namespace {

constexpr int kThreads = 128;

template <class T>
__global__ void __launch_bounds__(kThreads) turn(Rotation a) {
  __shared__ float cosine[kMostRotary / 2], sine[kMostRotary / 2];
  const int half = static_cast<int>(a.d / 2);
  const double position = a.positions[blockIdx.x];
  for (int i = threadIdx.x; i < half; i += kThreads) {
    float s, c;
    sincosf(reduced_angle(position, a.inv_freq[i]), &s, &c);
    cosine[i] = c * a.factor;
    sine[i] = a.inverse ? -s * a.factor : s * a.factor;
  }
  __syncthreads();
  const std::int64_t row = blockIdx.x * a.heads * a.d;
  const T* x = static_cast<const T*>(a.x) + row;
  T* y = static_cast<T*>(a.y) + row;
  const int pairs = static_cast<int>(a.heads) * half;
  for (int p = threadIdx.x; p < pairs; p += kThreads) {
    const int head = p / half, i = p - head * half, start = head * 2 * half;
    const int u = start + (a.interleaved ? 2 * i : i), v = u + (a.interleaved ? 1 : half);
    const float xu = widen<float>(x[u]), xv = widen<float>(x[v]), c = cosine[i], s = sine[i];
    y[u] = narrow<T>(xu * c - xv * s);
    y[v] = narrow<T>(xu * s + xv * c);
  }
}

}  // namespace

void rotate(const Rotation& a, cudaStream_t stream) {
  if (a.tokens == 0 || a.heads == 0 || a.d == 0) return;
  if (a.type == DType::bf16)
    turn<bf16><<<static_cast<unsigned>(a.tokens), kThreads, 0, stream>>>(a);
  else
    turn<float><<<static_cast<unsigned>(a.tokens), kThreads, 0, stream>>>(a);
  check_launch("rope");
}

}  // namespace supersonic::cuda
