// Probe loops for AVX-512: 24 independent accumulators hide the latency of each dot product.
#if defined(__x86_64__)
// GCC 12 takes the deliberately undefined operands inside its own intrinsics for mistakes.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>

#include "backend/cpu/kernels/probe_inner.h"

namespace supersonic::cpu {
namespace {

constexpr int kChains = 24;

template <class Reg, class Step>
double run(std::int64_t rounds, double operations, Reg zero, Step step) {
  Reg acc[kChains];
#pragma GCC unroll 24
  for (int i = 0; i < kChains; ++i) acc[i] = zero;
  for (std::int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 24
    for (int i = 0; i < kChains; ++i) acc[i] = step(acc[i]);
#pragma GCC unroll 24
    for (int i = 0; i < kChains; ++i) __asm__ volatile("" : "+v"(acc[i]));
  }
  return static_cast<double>(rounds) * kChains * operations;
}

double fp32(std::int64_t rounds) {
  __m512 a = _mm512_set1_ps(1.0f), b = _mm512_set1_ps(1e-8f);
  __asm__ volatile("" : "+v"(a), "+v"(b));
  return run(rounds, 32, _mm512_setzero_ps(), [=](__m512 c) { return _mm512_fmadd_ps(a, b, c); });
}
double bf16(std::int64_t rounds) {
  __m512i bits = _mm512_set1_epi16(0x3c00);
  __asm__ volatile("" : "+v"(bits));
  const auto a = (__m512bh)bits;
  return run(rounds, 64, _mm512_setzero_ps(), [=](__m512 c) { return _mm512_dpbf16_ps(c, a, a); });
}
double int8(std::int64_t rounds) {
  __m512i a = _mm512_set1_epi8(1);
  __asm__ volatile("" : "+v"(a));
  return run(rounds, 128, _mm512_setzero_si512(), [=](__m512i c) { return _mm512_dpbusd_epi32(c, a, a); });
}
std::uint64_t read(const std::uint8_t* data, std::size_t bytes) {
  __m512i sum[8];
  for (auto& s : sum) s = _mm512_setzero_si512();
  for (std::size_t i = 0; i < bytes; i += 512) {
    _mm_prefetch(reinterpret_cast<const char*>(data + i + 2048), _MM_HINT_T0);
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) sum[j] = _mm512_xor_si512(sum[j], _mm512_loadu_si512(data + i + j * 64));
  }
  for (int j = 1; j < 8; ++j) sum[0] = _mm512_xor_si512(sum[0], sum[j]);
  return static_cast<std::uint64_t>(_mm512_reduce_add_epi64(sum[0]));
}

}  // namespace

const ProbeLoops& probe_avx512() {
  static constexpr ProbeLoops loops = {fp32, bf16, int8, read};
  return loops;
}

}  // namespace supersonic::cpu
#endif
