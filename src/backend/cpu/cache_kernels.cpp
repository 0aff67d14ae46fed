// Writing to a KV cache: rows of keys or values as they are, cast, or encoded (FP8, Q8_0).
//
// A cache keeps what arithmetic brings: no value is refused here. FP8 saturates, as the OCP
// specification says; a block of Q8_0 whose largest value no scale holds (beyond 65504, or not a
// number) gets NaN for a scale, so that it reads as NaN and is noticed.
#include "backend/cpu/cache_kernels.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/kernels/array.h"
#include "backend/cpu/scalar_access.h"
#include "formats/fp8.h"
#include "formats/q8_0.h"
#include "ops/kv_append.h"

namespace supersonic {

namespace cpu {

CacheCodes cache_codes(const Spec& cache) {
  if (!cache.format) return CacheCodes::none;
  if (cache.format->name == formats::Fp8::name) return CacheCodes::fp8;
  const bool whole = cache.shape.rank > 0 && cache.shape[-1] % formats::Q8_0::weights == 0;
  return cache.format->name == formats::Q8_0::name && whole ? CacheCodes::q8_0 : CacheCodes::none;
}

}  // namespace cpu

namespace {

using cpu::pool_of;

void encode(const float* x, formats::Fp8::Block& block) { formats::Fp8::encode(x, block); }

void encode(const float* x, formats::Q8_0::Block& block) {
  float largest = 0;
  bool number = true;
  for (int i = 0; i < formats::Q8_0::weights; ++i) {
    largest = std::max(largest, std::fabs(x[i]));
    number &= x[i] == x[i];
  }
  if (number && largest <= formats::kLargestWeight) return formats::Q8_0::encode(x, block);
  block = {};
  block.d = f16(NAN);
}

// Numbers [begin, end) of x, both multiples of a block, to the blocks from `to` on.
template <class Codec>
void encode_numbers(const void* x, DType type, std::int64_t begin, std::int64_t end,
                    typename Codec::Block* to) {
  float piece[Codec::weights];
  for (std::int64_t i = begin; i < end; i += Codec::weights, ++to) {
    const float* numbers = static_cast<const float*>(x) + i;
    if (type != DType::f32) {
      for (int k = 0; k < Codec::weights; ++k)
        piece[k] = type == DType::bf16 ? static_cast<float>(static_cast<const bf16*>(x)[i + k])
                                       : static_cast<float>(cpu::load_as_double(x, type, i + k));
      numbers = piece;
    }
    encode(numbers, *to);
  }
}

template <class Codec>
void append_coded(cpu::Pool& pool, const Problem& p, const Pointers& ptr, std::int64_t first_row) {
  const Spec& x = p.in[1].spec;
  const std::int64_t row = x.shape[1] * x.shape[2];
  auto* blocks = static_cast<typename Codec::Block*>(ptr.in[0]);
  pool.ranges(x.shape[0], 8, [&](std::int64_t begin, std::int64_t end, int) {
    encode_numbers<Codec>(ptr.in[1], x.dtype, begin * row, end * row,
                          blocks + (first_row + begin) * row / Codec::weights);
  });
}

bool small_float(DType t) { return t == DType::f32 || t == DType::bf16 || t == DType::f16; }

void append_numbers(cpu::Pool& pool, const Problem& p, const Pointers& ptr,
                    std::int64_t first_row) {
  const DType from = p.in[1].spec.dtype, to = p.in[0].spec.dtype;
  const std::int64_t n = p.in[1].spec.numel(), row = p.in[0].spec.shape[1] * p.in[0].spec.shape[2];
  auto* at =
      static_cast<std::byte*>(ptr.in[0]) + first_row * row * static_cast<std::int64_t>(size_of(to));
  if (small_float(from) && small_float(to))
    return cpu::array_kernels().cast(pool, ptr.in[1], from, at, to, n);
  for (std::int64_t i = 0; i < n; ++i)
    cpu::store_from_double(at, to, i, cpu::load_as_double(ptr.in[1], from, i));
}

}  // namespace

KERNEL(kv_append) {
  return {.op = &op<KvAppend>(),
          .name = "cpu.kv_append",
          .reject = [](const Problem& p) -> const char* {
            const Spec& cache = p.in[0].spec;
            return cache.format && cpu::cache_codes(cache) == cpu::CacheCodes::none
                       ? "a cache holds numbers, fp8, or q8_0 with heads of whole blocks"
                       : nullptr;
          },
          .launch =
              [](const Problem& p, const Pointers& ptr, Lane& lane) {
                const Spec &cache = p.in[0].spec, &x = p.in[1].spec;
                const std::int64_t at = *static_cast<const std::int32_t*>(ptr.in[2]);
                CHECK(at >= 0 && at + x.shape[0] <= cache.shape[0],
                      "kv_append: rows {} to {} are outside of a cache of {}", at, at + x.shape[0],
                      cache.shape[0]);
                switch (cpu::cache_codes(cache)) {
                  case cpu::CacheCodes::fp8:
                    return append_coded<formats::Fp8>(pool_of(lane), p, ptr, at);
                  case cpu::CacheCodes::q8_0:
                    return append_coded<formats::Q8_0>(pool_of(lane), p, ptr, at);
                  default:
                    return append_numbers(pool_of(lane), p, ptr, at);
                }
              }};
}

}  // namespace supersonic
