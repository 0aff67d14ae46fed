// Choosing a token: eight blocks that share their memory (one before Hopper, and for few tokens) go
// over the logits, each warp over a stretch of them, as often as the settings ask. A greedy choice
// is one pass. Top-k and top-p are a search for the least likely token that is kept: its logit's
// bits are found eight at a time, by sums of counts or weights in 256 bins, and no list is ever
// sorted. The draw looks for the token at which the sum of weights, by id, exceeds a number. Sums
// are of whole numbers (ops/sampling.h): any order gives the CPU's result.
//
// Bound by latency: a pass over 128,256 logits reads 64 KiB a block from the L2 cache, about 1 us.
#include <cstring>
#include <type_traits>

#include "backend/cuda/kernels/cluster.cuh"
#include "backend/cuda/kernels/overlap.cuh"
#include "backend/cuda/kernels/reduce.cuh"
#include "backend/cuda/kernels/sample.h"
#include "ops/sampling.h"

namespace supersonic::cuda {
namespace {

constexpr int kThreads = 1024, kWarps = kThreads / 32, kBins = 256, kDigit = 8;
constexpr int kTeam = 8, kFewTokens = 8192;
constexpr unsigned kAll = 0xffffffffu;
using Long = unsigned long long;

// Bits of a float whose order as whole numbers is that of the floats; 0: not a number.
__device__ inline unsigned key_of(float x) {
  if (x != x) return 0;
  const unsigned u = __float_as_uint(x + 0.0f);  // -0 equals 0
  return u >> 31 ? ~u : u | 0x80000000u;
}
__device__ inline float logit_of(unsigned key) {
  return __uint_as_float(key >> 31 ? key & 0x7fffffffu : ~key);
}

// Tokens at least as likely as one: a higher key, or this one up to an id.
struct Cut {
  unsigned key = 0;
  int id = 0x7fffffff;
  __device__ bool keeps(unsigned k, int i) const { return k > key || (k == key && i <= id); }
};

struct Shared {
  Long bins[kBins];  // each a pair of words, the lower one first
  Long warps[kWarps];
  Long scratch[32];
  Long slots[2];  // this block's part of a sum over all blocks, by turns
  Long digit, before, inside;
};

struct One {  // counts
  __device__ Long operator()(int, unsigned) const { return 1; }
};
struct Sum {
  __device__ Long operator()(Long a, Long b) const { return a + b; }
};

// The blocks of one launch: `blocks` of them form a cluster.
template <int blocks>
struct Team {
  Shared& shared;
  int turn = 0;

  __device__ int rank() const { return blocks > 1 ? static_cast<int>(blockIdx.x) : 0; }
  __device__ void sync() const {
    __syncwarp();
#if __CUDA_ARCH__ >= 900
    if constexpr (blocks > 1) return cluster_sync();
#endif
    __syncthreads();
  }
  // A number in this block's shared memory, as it is in block `of`.
  __device__ Long read(const Long& mine, int of) const {
#if __CUDA_ARCH__ >= 900
    if constexpr (blocks > 1)
      return load_long_of(of, static_cast<std::uint32_t>(__cvta_generic_to_shared(&mine)));
#endif
    return mine;
  }
  template <class Join>
  __device__ Long over_blocks(Long x, Join join) {
    if (threadIdx.x == 0) shared.slots[turn] = x;
    sync();
    Long all = read(shared.slots[turn], 0);
    for (int b = 1; b < blocks; ++b) all = join(all, read(shared.slots[turn], b));
    turn ^= 1;  // whoever is ahead writes the other one, and comes no further than one sync()
    return all;
  }
  // Every thread gets the result.
  template <class Join>
  __device__ Long join(Long x, Join join) {
    return over_blocks(reduce_block(x, join, Long{0}, shared.scratch), join);
  }
};

template <int blocks>
struct Chooser {
  const SampleCall& a;
  Team<blocks> team;
  Sampling s;
  int begin, end;  // of this warp's tokens

  __device__ void set_range(int tokens) {
    constexpr int parts = blocks * kWarps;
    const int part = team.rank() * kWarps + static_cast<int>(threadIdx.x) / 32,
              each = (tokens + parts - 1) / parts;
    begin = min(part * each, tokens), end = min(begin + each, tokens);
  }

  __device__ unsigned key_at(int i) const {
    float x = a.logits[i];
    if (s.penalty != 1 && a.seen[i]) x = sampling::penalised(s, x);
    return key_of(x);
  }

  // f(i, key) for each of this warp's tokens, lane beside lane, four loads at a time.
  template <class F>
  __device__ void each(F f) const {
    constexpr int batch = 4;
    for (int first = begin + static_cast<int>(threadIdx.x) % 32; first < end; first += 32 * batch) {
      unsigned key[batch];
#pragma unroll
      for (int k = 0; k < batch; ++k) key[k] = first + 32 * k < end ? key_at(first + 32 * k) : 0;
#pragma unroll
      for (int k = 0; k < batch; ++k)
        if (key[k]) f(first + 32 * k, key[k]);
    }
  }

  // Key and id of the most likely token, as one number; 0 where there is none.
  __device__ Long most_likely() {
    Long best = 0;
    each([&](int i, unsigned key) {
      best = max(best, static_cast<Long>(key) << 32 | ~static_cast<unsigned>(i));
    });
    return team.join(best, Larger{});
  }

  // The id at which the sum of value(i, key), in the order of ids, first exceeds at_least(total).
  template <class Value, class Draw>
  __device__ int find(Value value, Draw at_least) {
    const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
    Shared& shared = team.shared;
    Long mine = 0;
    each([&](int i, unsigned key) { mine += value(i, key); });
    mine = reduce_warp(mine, Sum{});
    __syncthreads();
    if (lane == 0) shared.warps[warp] = mine;
    __syncthreads();
    const Long all = reduce_warp(shared.warps[lane], Sum{});
    const int turn = team.turn;
    const Long total = team.over_blocks(all, Sum{});
    Long rest = at_least(total);
    bool here = true;
    for (int b = 0; b < team.rank(); ++b) here &= subtract(rest, team.read(shared.slots[turn], b));
    for (int w = 0; w < warp; ++w) here &= subtract(rest, shared.warps[w]);
    here &= rest < mine;
    return static_cast<int>(team.join(here ? find_here(value, rest) : 0, Sum{}));
  }
  // Takes a part off; false: the number lies within it.
  __device__ static bool subtract(Long& rest, Long part) {
    if (rest < part) return false;
    rest -= part;
    return true;
  }
  // Within this warp's tokens: the id for the lane that has it, 0 for the others.
  template <class Value>
  __device__ Long find_here(Value value, Long rest) const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    for (int first = begin; first < end; first += 32) {
      const int i = first + lane;
      const unsigned key = i < end ? key_at(i) : 0;
      const Long own = key ? value(i, key) : 0;
      Long sum = own;
#pragma unroll
      for (int step = 1; step < 32; step *= 2) {
        const Long left = __shfl_up_sync(kAll, sum, step);
        if (lane >= step) sum += left;
      }
      const Long whole = __shfl_sync(kAll, sum, 31);
      if (rest < whole) return rest >= sum - own && rest < sum ? static_cast<Long>(i) : 0;
      rest -= whole;
    }
    return 0;
  }

  // The most likely tokens whose values reach `target` (at least 1); all where they do not.
  template <class Value>
  __device__ Cut reach(Value value, Long target) {
    Shared& shared = team.shared;
    unsigned prefix = 0;
    for (int shift = 32 - kDigit;; shift -= kDigit) {
      __syncthreads();
      if (threadIdx.x < kBins) shared.bins[threadIdx.x] = 0;
      if (threadIdx.x == 0) shared.inside = 0;
      __syncthreads();
      each([&](int i, unsigned key) {
        if (shift + kDigit < 32 && key >> (shift + kDigit) != prefix) return;
        Long& bin = shared.bins[key >> shift & (kBins - 1)];
        if constexpr (std::is_same_v<Value, One>)
          atomicAdd(reinterpret_cast<unsigned*>(&bin), 1u);
        else
          add(bin, value(i, key));
      });
      team.sync();
      find_bin(target);
      team.sync();  // the bins were read by all
      if (shared.inside == 0) return {};
      prefix = prefix << kDigit | static_cast<unsigned>(shared.digit);
      target -= shared.before;
      if (shared.inside == target) return {prefix << shift, 0x7fffffff};
      if (shift == 0) break;
    }
    const auto equal = [&](int i, unsigned key) { return key == prefix ? value(i, key) : Long{0}; };
    return {prefix, find(equal, [&](Long) { return target - 1; })};
  }
  // Sums of 64 bits from additions of 32, which shared memory has.
  __device__ static void add(Long& bin, Long x) {
    auto* words = reinterpret_cast<unsigned*>(&bin);
    const auto low = static_cast<unsigned>(x);
    auto high = static_cast<unsigned>(x >> 32);
    if (low && atomicAdd(&words[0], low) + low < low) ++high;
    if (high) atomicAdd(&words[1], high);
  }
  // The bin, from the highest, at which the sum over all blocks reaches the target: shared.digit,
  // the sum before it and its own.
  __device__ void find_bin(Long target) {
    Shared& shared = team.shared;
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    const int digit = kBins - 1 - static_cast<int>(threadIdx.x);
    Long own = 0, sum = 0;
    if (digit >= 0) {
      for (int b = 0; b < blocks; ++b) own += team.read(shared.bins[digit], b);
      sum = own;
#pragma unroll
      for (int step = 1; step < 32; step *= 2) {
        const Long left = __shfl_up_sync(kAll, sum, step);
        if (lane >= step) sum += left;
      }
      if (lane == 31) shared.warps[warp] = sum;
    }
    __syncthreads();
    if (digit < 0) return;
    for (int w = 0; w < warp; ++w) sum += shared.warps[w];
    if (sum - own < target && target <= sum)
      shared.digit = static_cast<Long>(digit), shared.before = sum - own, shared.inside = own;
  }

  // A draw by the settings; `highest`: the largest logit.
  __device__ int draw(float highest, std::uint32_t position, int tokens) {
    Cut kept;
    if (sampling::keeps_best(s, tokens)) kept = reach(One{}, static_cast<Long>(s.top_k));
    Long total = 0;
    each([&](int i, unsigned key) {
      const Long w = kept.keeps(key, i) ? sampling::weight_of(s, highest, logit_of(key)) : 0;
      a.weights[i] = w;  // read by this thread alone, or by its warp
      total += w;
    });
    __syncwarp();
    if (s.top_p < 1) {
      total = team.join(total, Sum{});
      kept = reach([&](int i, unsigned) { return Long{a.weights[i]}; }, sampling::mass(s, total));
    }
    const auto weight = [&](int i, unsigned key) {
      const Long w = a.weights[i];
      return w >= s.least && kept.keeps(key, i) ? w : Long{0};
    };
    return find(weight, [&](Long all) { return Long{sampling::draw(s, position, all)}; });
  }
};

template <int blocks>
__global__ void __launch_bounds__(kThreads)
    sample_kernel(const __grid_constant__ SampleCall a, FaultSink faults) {
  __shared__ Shared shared;
  let_next_start();
  after_previous();
  Chooser<blocks> chooser{a, {shared}, {}, 0, 0};
  Sampling& s = chooser.s;
  int words[kSamplingWords];
#pragma unroll
  for (int i = 0; i < kSamplingWords; ++i) words[i] = a.settings[i];
  memcpy(&s, words, sizeof s);
  const std::int32_t row = a.step[static_cast<int>(StepFeed::at)];
  const int tokens = max(1, min(a.width, s.vocabulary));
  chooser.set_range(tokens);
  const Long best = chooser.most_likely();
  const float highest = logit_of(static_cast<unsigned>(best >> 32));
  int token = static_cast<int>(~static_cast<unsigned>(best));
  if (!best || (!sampling::greedy(s) && !isfinite(highest))) {
    if (chooser.team.rank() == 0 && threadIdx.x == 0)
      report_fault(faults, FaultKind::logits, tokens, row, 0);
    token = 0;
  } else if (!sampling::greedy(s)) {
    token = chooser.draw(highest, static_cast<std::uint32_t>(row + 1), tokens);
  }
  chooser.team.sync();  // nobody leaves whose memory is read, and all have read the step
  if (chooser.team.rank() != 0 || threadIdx.x != 0) return;
  a.chosen[row % a.slots] = token;
  a.seen[token] = 1;
  set_step(a.step, token, row + 1, a.window);
}

}  // namespace

void sample_step(const SampleCall& a, FaultSink faults, cudaStream_t stream) {
  const bool team = device_limits().capability >= 90 && a.width > kFewTokens;
  const unsigned blocks = team ? kTeam : 1;
  launch_overlapped("sample_step", team ? sample_kernel<kTeam> : sample_kernel<1>,
                    Launch{blocks, kThreads, 0, blocks}, stream, a, faults);
}

}  // namespace supersonic::cuda
