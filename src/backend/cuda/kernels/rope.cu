#include "backend/cuda/kernels/rope.h"

#include "backend/cuda/kernels/fault.h"
#include "backend/cuda/kernels/rotary.cuh"
#include "backend/cuda/kernels/scalar.h"

namespace supersonic::cuda {
namespace {

constexpr int kThreads = 128;

// Cosines and sines of a block's token, times the attention factor; the caller waits for the block.
__device__ inline void angles_of(const Rotation& a, float* cosine, float* sine) {
  const int half = static_cast<int>(a.d / 2);
  const double position = a.positions[blockIdx.x];
  for (int i = threadIdx.x; i < half; i += kThreads) {
    float s, c;
    sincosf(reduced_angle(position, a.inv_freq[i]), &s, &c);
    cosine[i] = c * a.factor;
    sine[i] = a.inverse ? -s * a.factor : s * a.factor;
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads) turn(Rotation a) {
  __shared__ float cosine[kMostRotary / 2], sine[kMostRotary / 2];
  angles_of(a, cosine, sine);
  __syncthreads();
  const int half = static_cast<int>(a.d / 2);
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

// The same by vectors of 16 bytes, two of a head at once: W pairs. What a thread turns first is on
// its way while the angles are computed. half must be a multiple of W, and the rows aligned.
template <class T, bool kInterleaved>
__global__ void __launch_bounds__(kThreads) turn_vectors(Rotation a) {
  constexpr int W = 16 / sizeof(T), kHeld = 2;
  using Vector = Pack<T, W>;
  __shared__ alignas(16) float cosine[kMostRotary / 2], sine[kMostRotary / 2];
  const int half = static_cast<int>(a.d / 2), of_head = half / W,
            all = static_cast<int>(a.heads) * of_head;
  const std::int64_t row = blockIdx.x * a.heads * a.d;
  const T* x = static_cast<const T*>(a.x) + row;
  T* y = static_cast<T*>(a.y) + row;
  Vector low[kHeld], high[kHeld];
  auto place = [&](int n,
                   int& i) {  // element of the first vector; i: of its first pair in the head
    const int head = n / of_head;
    i = (n - head * of_head) * W;
    return head * 2 * half + (kInterleaved ? 2 * i : i);
  };
  constexpr int kStep = kThreads * kHeld;
  const int apart = kInterleaved ? W : half;
  for (int start = 0; start < all; start += kStep) {
#pragma unroll
    for (int h = 0; h < kHeld; ++h) {
      int i;
      const int n = start + h * kThreads + static_cast<int>(threadIdx.x), u = place(n, i);
      if (n >= all) continue;
      low[h] = *reinterpret_cast<const Vector*>(x + u);
      high[h] = *reinterpret_cast<const Vector*>(x + u + apart);
    }
    if (start == 0) {
      angles_of(a, cosine, sine);
      __syncthreads();
    }
#pragma unroll
    for (int h = 0; h < kHeld; ++h) {
      int i;
      const int n = start + h * kThreads + static_cast<int>(threadIdx.x), u = place(n, i);
      if (n >= all) continue;
      T *first = low[h].v, *second = high[h].v;
#pragma unroll
      for (int k = 0; k < W; ++k) {
        T& to_u = kInterleaved ? (2 * k < W ? first[2 * k % W] : second[2 * k % W]) : first[k];
        T& to_v =
            kInterleaved ? (2 * k < W ? first[2 * k % W + 1] : second[2 * k % W + 1]) : second[k];
        const float xu = widen<float>(to_u), xv = widen<float>(to_v), c = cosine[i + k],
                    s = sine[i + k];
        to_u = narrow<T>(xu * c - xv * s);
        to_v = narrow<T>(xu * s + xv * c);
      }
      *reinterpret_cast<Vector*>(y + u) = low[h];
      *reinterpret_cast<Vector*>(y + u + apart) = high[h];
    }
  }
}

template <class T>
void launch(const Rotation& a, cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>(a.tokens);
  const auto address =
      reinterpret_cast<std::uintptr_t>(a.x) | reinterpret_cast<std::uintptr_t>(a.y);
  if (address % 16 != 0 || a.d / 2 % (16 / sizeof(T)) != 0)
    turn<T><<<blocks, kThreads, 0, stream>>>(a);
  else if (a.interleaved)
    turn_vectors<T, true><<<blocks, kThreads, 0, stream>>>(a);
  else
    turn_vectors<T, false><<<blocks, kThreads, 0, stream>>>(a);
}

}  // namespace

void rotate(const Rotation& a, cudaStream_t stream) {
  if (a.tokens == 0 || a.heads == 0 || a.d == 0) return;
  a.type == DType::bf16 ? launch<bf16>(a, stream) : launch<float>(a, stream);
  check_launch("rope");
}

}  // namespace supersonic::cuda
