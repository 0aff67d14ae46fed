// The catalogue of chains: the programs that models run, each as a kernel of its own over dense
// operands. Everything is known when it is compiled, so values stay in registers and what two
// instructions share (the sigmoid of a gate, say) is computed once. A thread takes kVectors vectors
// of 16 bytes of each operand and has all of them on their way before it computes. Limit:
// bandwidth, each operand read once and each result written once.
#include <iterator>
#include <utility>

#include "backend/cuda/kernels/chain.h"
#include "backend/cuda/kernels/chain_maps.cuh"
#include "backend/cuda/kernels/fault.h"

namespace supersonic::cuda {
namespace {

constexpr int kThreads = 256, kVectors = 2;

template <class M>
constexpr std::uint8_t kMapNumber = 0;
#define SUPERSONIC_MAP_NUMBER(M) \
  template <>                    \
  constexpr std::uint8_t kMapNumber<::supersonic::M> = static_cast<std::uint8_t>(MapOp::M);
SUPERSONIC_MAP_OPS(SUPERSONIC_MAP_NUMBER)
#undef SUPERSONIC_MAP_NUMBER

// Instruction: a map and the numbers of the values that it reads. Loads are numbered first, then
// instructions.
template <class M, int... Src>
struct Do {
  static constexpr ChainCode::Instr code() {
    ChainCode::Instr instr{kMapNumber<M>, {-1, -1, -1}};
    int k = 0;
    ((instr.src[k++] = Src), ...);
    return instr;
  }
  template <class N>
  __device__ static N run(const std::uint8_t* attrs, const N* value) {
    static_assert(sizeof(M) <= kChainAttrBytes && M::arity == sizeof...(Src));
    return M::map(*reinterpret_cast<const M*>(attrs), value[Src]...);
  }
};
template <int... V>
struct Stores {
  static constexpr int count = sizeof...(V);
  static constexpr int at(int s) {
    constexpr int values[] = {V...};
    return values[s];
  }
};

template <int Loads, class Out, class... Instr>
struct Known {
  static constexpr int loads = Loads, instrs = sizeof...(Instr), stores = Out::count;
  static_assert(loads <= kKnownLoads && instrs <= kKnownInstrs && stores <= kKnownStores);

  static constexpr ChainCode code() {
    ChainCode c;
    c.loads = loads, c.instrs = instrs, c.stores = stores;
    int i = 0;
    ((c.instr[i++] = Instr::code()), ...);
    for (int s = 0; s < stores; ++s) c.store[s] = static_cast<std::int8_t>(Out::at(s));
    return c;
  }

  // value: the loads in front; the instructions' results behind them.
  template <class N>
  __device__ static void run(const KnownChainTask& t, N* value) {
    int i = 0;
    ((value[loads + i] = Instr::run(t.attrs[i].bytes, value), ++i), ...);
  }
  static constexpr int result(int s) { return Out::at(s); }
};

template <class Program, class In, class Out>
__global__ void __launch_bounds__(kThreads) known_chain(const __grid_constant__ KnownChainTask t) {
  using N = Num<float>;
  constexpr int W = 16 / (sizeof(In) < sizeof(Out) ? sizeof(In) : sizeof(Out));
  const std::int64_t first = (std::int64_t{blockIdx.x} * kVectors * kThreads + threadIdx.x) * W;
  Pack<In, W> x[kVectors][Program::loads];
#pragma unroll
  for (int j = 0; j < kVectors; ++j) {
    const std::int64_t at = first + j * kThreads * W;
    if (at + W > t.total) continue;
#pragma unroll
    for (int v = 0; v < Program::loads; ++v)
      x[j][v] = *reinterpret_cast<const Pack<In, W>*>(static_cast<const In*>(t.in[v]) + at);
  }
#pragma unroll
  for (int j = 0; j < kVectors; ++j) {
    const std::int64_t at = first + j * kThreads * W;
    if (at + W > t.total) {
      for (std::int64_t i = at; i < t.total; ++i) {  // the last elements
        N value[Program::loads + Program::instrs];
        for (int v = 0; v < Program::loads; ++v)
          value[v] = N::of(widen<float>(static_cast<const In*>(t.in[v])[i]));
        Program::run(t, value);
#pragma unroll
        for (int s = 0; s < Program::stores; ++s)
          static_cast<Out*>(t.out[s])[i] = narrow<Out>(value[Program::result(s)].v);
      }
      continue;
    }
    Pack<Out, W> y[Program::stores];
#pragma unroll
    for (int i = 0; i < W; ++i) {
      N value[Program::loads + Program::instrs];
#pragma unroll
      for (int v = 0; v < Program::loads; ++v) value[v] = N::of(widen<float>(x[j][v].v[i]));
      Program::run(t, value);
#pragma unroll
      for (int s = 0; s < Program::stores; ++s)
        y[s].v[i] = narrow<Out>(value[Program::result(s)].v);
    }
#pragma unroll
    for (int s = 0; s < Program::stores; ++s)
      *reinterpret_cast<Pack<Out, W>*>(static_cast<Out*>(t.out[s]) + at) = y[s];
  }
}

template <class Program, class In, class Out>
void launch(const KnownChainTask& t, cudaStream_t stream) {
  constexpr std::int64_t block = std::int64_t{kThreads} * kVectors * 16 /
                                 (sizeof(In) < sizeof(Out) ? sizeof(In) : sizeof(Out));
  known_chain<Program, In, Out>
      <<<static_cast<unsigned>((t.total + block - 1) / block), kThreads, 0, stream>>>(t);
  check_launch("chain");
}

struct Entry {
  ChainCode code;
  DType in, out;
  KnownChain run;
};
template <class Program, class In, class Out>
constexpr Entry entry(DType in, DType out) {
  return {Program::code(), in, out, launch<Program, In, Out>};
}

// The gradient of act(gate) * up by gate and up; as it is, and with the product itself recomputed.
template <class Act, class ActGrad>
using GatedGrad = Known<3, Stores<4, 6>, Do<Mul, 0, 1>, Do<ActGrad, 2, 3>, Do<Act, 2>,
                        Do<Mul, 0, 5>>;  // dy, up, gate
template <class Gated, class Act, class ActGrad>
using GatedAgain = Known<3, Stores<3, 5, 7>, Do<Gated, 0, 1>, Do<Mul, 2, 1>, Do<ActGrad, 0, 4>,
                         Do<Act, 0>, Do<Mul, 2, 6>>;  // gate, up, dy
// The same of an activation whose gradients are operations of their own: gate, up, dy.
using ClampedGrad =
    Known<3, Stores<3, 4>, Do<ClampedSwigluGateGrad, 0, 1, 2>, Do<ClampedSwigluUpGrad, 0, 1, 2>>;
using ClampedAgain = Known<3, Stores<3, 4, 5>, Do<ClampedSwiglu, 0, 1>,
                           Do<ClampedSwigluGateGrad, 0, 1, 2>, Do<ClampedSwigluUpGrad, 0, 1, 2>>;
template <class M>
using One = Known<1, Stores<1>, Do<M, 0>>;
template <class M>
using Two = Known<2, Stores<2>, Do<M, 0, 1>>;

#define BOTH_TYPES(...)                                     \
  entry<__VA_ARGS__, bf16, bf16>(DType::bf16, DType::bf16), \
      entry<__VA_ARGS__, float, float>(DType::f32, DType::f32)
const Entry kCatalogue[] = {
    BOTH_TYPES(Two<Add>),
    BOTH_TYPES(Two<Mul>),
    BOTH_TYPES(One<Scale>),
    BOTH_TYPES(Two<Swiglu>),
    BOTH_TYPES(Two<Geglu>),
    BOTH_TYPES(Two<ClampedSwiglu>),
    BOTH_TYPES(GatedGrad<Silu, SiluGrad>),
    BOTH_TYPES(GatedGrad<Gelu, GeluGrad>),
    BOTH_TYPES(GatedAgain<Swiglu, Silu, SiluGrad>),
    BOTH_TYPES(GatedAgain<Geglu, Gelu, GeluGrad>),
    BOTH_TYPES(ClampedGrad),
    BOTH_TYPES(ClampedAgain),
    entry<One<Cast>, float, bf16>(DType::f32, DType::bf16),
    entry<One<Cast>, bf16, float>(DType::bf16, DType::f32),
};
#undef BOTH_TYPES

}  // namespace

KnownChain find_known_chain(const ChainCode& code, DType in, DType out) {
  for (const Entry& e : kCatalogue)
    if (e.in == in && e.out == out && e.code == code) return e.run;
  return nullptr;
}

}  // namespace supersonic::cuda
