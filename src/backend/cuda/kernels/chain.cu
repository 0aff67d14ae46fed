#include "backend/cuda/kernels/chain.h"

#include "backend/cuda/kernels/chain_maps.cuh"
#include "backend/cuda/kernels/fault.h"

namespace supersonic::cuda {
namespace {

constexpr int kThreads = 128, kSharedBytes = 48 << 10;

// A thread's values in shared memory: column of the block, in parts of 16 bytes, so that neighbours
// use neighbouring banks.
template <class T, int W>
struct Slots {
  static constexpr int kParts = sizeof(T) * W > 16 ? static_cast<int>(sizeof(T) * W / 16) : 1;
  using Part = Pack<T, W / kParts>;
  Part* column;  // part p of slot s is column[(s * kParts + p) * blockDim.x]

  __device__ Pack<T, W> get(int slot) const {
    Pack<T, W> x;
#pragma unroll
    for (int p = 0; p < kParts; ++p) {
      const Part part = column[(slot * kParts + p) * blockDim.x];
#pragma unroll
      for (int i = 0; i < W / kParts; ++i) x.v[p * (W / kParts) + i] = part.v[i];
    }
    return x;
  }
  __device__ void put(int slot, const Pack<T, W>& x) const {
#pragma unroll
    for (int p = 0; p < kParts; ++p) {
      Part part;
#pragma unroll
      for (int i = 0; i < W / kParts; ++i) part.v[i] = x.v[p * (W / kParts) + i];
      column[(slot * kParts + p) * blockDim.x] = part;
    }
  }
};

template <class M, class T, int W>
__device__ void apply(const ChainTask::Instr& instr, const Slots<T, W>& slots) {
  static_assert(sizeof(M) <= kChainAttrBytes);
  const M& m = *reinterpret_cast<const M*>(instr.attrs);
  using N = Num<T>;
  Pack<T, W> x = slots.get(instr.src[0]), y, z;
  if constexpr (M::arity > 1) y = slots.get(instr.src[1]);
  if constexpr (M::arity > 2) z = slots.get(instr.src[2]);
#pragma unroll
  for (int i = 0; i < W; ++i) {
    if constexpr (M::arity == 1) x.v[i] = M::map(m, N::of(x.v[i])).v;
    if constexpr (M::arity == 2) x.v[i] = M::map(m, N::of(x.v[i]), N::of(y.v[i])).v;
    if constexpr (M::arity == 3) x.v[i] = M::map(m, N::of(x.v[i]), N::of(y.v[i]), N::of(z.v[i])).v;
  }
  slots.put(instr.slot, x);
}

template <class T, int W>
__device__ void execute(const ChainTask::Instr& instr, const Slots<T, W>& slots) {
  switch (static_cast<MapOp>(instr.op)) {
#define SUPERSONIC_MAP_CASE(M) \
  case MapOp::M:               \
    return apply<::supersonic::M, T, W>(instr, slots);
    SUPERSONIC_MAP_OPS(SUPERSONIC_MAP_CASE)
#undef SUPERSONIC_MAP_CASE
  }
}

template <class From, class T, int W>
__device__ Pack<T, W> load_as(const void* data, std::int64_t at, std::int64_t stride,
                              ChainAccess access, int n) {
  const From* p = static_cast<const From*>(data) + at;
  Pack<T, W> r;
  if (access == ChainAccess::vector && n == W) {
    const auto packed = *reinterpret_cast<const Pack<From, W>*>(p);
#pragma unroll
    for (int i = 0; i < W; ++i) r.v[i] = widen<T>(packed.v[i]);
  } else if (access == ChainAccess::one) {
    const T x = widen<T>(*p);
#pragma unroll
    for (int i = 0; i < W; ++i) r.v[i] = x;
  } else {
#pragma unroll
    for (int i = 0; i < W; ++i) r.v[i] = i < n ? widen<T>(p[i * stride]) : T(0);
  }
  return r;
}

template <class T, int W>
__device__ Pack<T, W> load(const ChainTask::In& in, std::int64_t at, std::int64_t stride, int n) {
  return with_type(in.type, [&](auto tag) {
    return load_as<typename decltype(tag)::type, T, W>(in.data, at, stride, in.access, n);
  });
}

template <class T, int W>
__device__ void store(const ChainTask::Out& out, std::int64_t at, const Pack<T, W>& x, int n) {
  with_type(out.type, [&](auto tag) {
    using To = typename decltype(tag)::type;
    To* p = static_cast<To*>(out.data) + at;
    if (out.vector && n == W) {
      Pack<To, W> packed;
#pragma unroll
      for (int i = 0; i < W; ++i) packed.v[i] = narrow<To>(x.v[i]);
      *reinterpret_cast<Pack<To, W>*>(p) = packed;
    } else {
#pragma unroll
      for (int i = 0; i < W; ++i)
        if (i < n) p[i] = narrow<To>(x.v[i]);
    }
  });
}

// The first operands of a chain that reads few, whole vectors of each: all of them are on their way
// before the first is needed.
template <class T, int W>
struct Prefetched {
  static constexpr int kMost = 4;
  uint4 raw[kMost];

  // A vector of 2 to 16 bytes.
  __device__ static uint4 fetch(const void* data, std::int64_t at, int bytes) {
    const char* p = static_cast<const char*>(data) + at;
    uint4 r{};
    if (bytes == 16)
      r = *reinterpret_cast<const uint4*>(p);
    else if (bytes == 8)
      *reinterpret_cast<uint2*>(&r) = *reinterpret_cast<const uint2*>(p);
    else
      r.x = *reinterpret_cast<const unsigned*>(p);
    return r;
  }
  __device__ void load(const ChainTask& t, std::int64_t first) {
#pragma unroll
    for (int v = 0; v < kMost; ++v) {
      if (v >= t.loads) break;
      const int size = bytes_of_element(t.in[v].type);
      raw[v] = fetch(t.in[v].data, first * size, W * size);
    }
  }
  __device__ void put(const ChainTask& t, const Slots<T, W>& slots) const {
#pragma unroll
    for (int v = 0; v < kMost; ++v) {
      if (v >= t.loads) break;
      with_type(t.in[v].type, [&](auto tag) {
        using From = typename decltype(tag)::type;
        if constexpr (sizeof(From) * W <= 16) {
          const auto packed = *reinterpret_cast<const Pack<From, W>*>(&raw[v]);
          Pack<T, W> x;
#pragma unroll
          for (int i = 0; i < W; ++i) x.v[i] = widen<T>(packed.v[i]);
          slots.put(t.in[v].slot, x);
        }
      });
    }
  }
  __device__ static int bytes_of_element(DType type) {
    return with_type(
        type, [](auto tag) { return static_cast<int>(sizeof(typename decltype(tag)::type)); });
  }
};

// Index: 32 bits where the element count allows it, since the coordinates cost divisions.
template <class T, int W, class Index>
__global__ void __launch_bounds__(kThreads) chain(const __grid_constant__ ChainTask t) {
  extern __shared__ __align__(16) unsigned char memory[];
  const Slots<T, W> slots{reinterpret_cast<typename Slots<T, W>::Part*>(memory) + threadIdx.x};
  const int inner = t.rank - 1;
  const Index total = static_cast<Index>(t.total),
              step = static_cast<Index>(gridDim.x) * blockDim.x * W;
  for (Index first = (static_cast<Index>(blockIdx.x) * blockDim.x + threadIdx.x) * W; first < total;
       first += step) {
    const int n = total - first < W ? static_cast<int>(total - first) : W;
    if (W > 1 && t.few && n == W) {
      Prefetched<T, W> operands;
      operands.load(t, static_cast<std::int64_t>(first));
      operands.put(t, slots);
    } else {
      for (int v = 0; v < t.loads; ++v) {
        const auto& in = t.in[v];
        std::int64_t at = 0;
        Index rest = first;
        for (int d = inner; d > 0; --d) {
          const Index size = static_cast<Index>(t.dims[d]), next = rest / size;
          at += static_cast<std::int64_t>(rest - next * size) * in.strides[d];
          rest = next;
        }
        at += static_cast<std::int64_t>(rest) * in.strides[0];
        slots.put(in.slot, load<T, W>(in, at, in.strides[inner], n));
      }
    }
    for (int i = 0; i < t.num_instrs; ++i) execute(t.instrs[i], slots);
    for (int s = 0; s < t.stores; ++s)
      store<T, W>(t.out[s], static_cast<std::int64_t>(first), slots.get(t.out[s].slot), n);
  }
}

template <class T, int W>
void launch(const ChainTask& t, int multiprocessors, cudaStream_t stream) {
  int threads = kThreads;
  const std::size_t row = sizeof(Pack<T, W>) * static_cast<std::size_t>(t.slots > 0 ? t.slots : 1);
  while (row * static_cast<std::size_t>(threads) > kSharedBytes) threads /= 2;
  const std::int64_t wanted =
                         (t.total + std::int64_t{threads} * W - 1) / (std::int64_t{threads} * W),
                     most = std::int64_t{multiprocessors} * 32;
  const auto blocks = static_cast<unsigned>(wanted < most ? wanted : most);
  const std::size_t shared = row * static_cast<std::size_t>(threads);
  // A grid steps past the end by at most its own width, which must not wrap around.
  if (t.total < (std::int64_t{1} << 30))
    chain<T, W, std::uint32_t><<<blocks, threads, shared, stream>>>(t);
  else
    chain<T, W, std::uint64_t><<<blocks, threads, shared, stream>>>(t);
  check_launch("chain");
}

}  // namespace

void run_chain(const ChainTask& task, bool f64, int width, int multiprocessors,
               cudaStream_t stream) {
  if (f64)
    return width == 1 ? launch<double, 1>(task, multiprocessors, stream)
                      : launch<double, 2>(task, multiprocessors, stream);
  switch (width) {
    case 8:
      return launch<float, 8>(task, multiprocessors, stream);
    case 4:
      return launch<float, 4>(task, multiprocessors, stream);
    default:
      return launch<float, 1>(task, multiprocessors, stream);
  }
}

}  // namespace supersonic::cuda
