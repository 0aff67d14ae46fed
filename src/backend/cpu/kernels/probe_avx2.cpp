// Probe loops for AVX2: 12 accumulators. An int8 dot product is multiply-pairs, add-pairs, add: three instructions.
#if defined(__x86_64__)
#include <immintrin.h>

#include "backend/cpu/kernels/probe_inner.h"

namespace supersonic::cpu {
namespace {

constexpr int kChains = 12;

template <class Reg, class Step>
double run(std::int64_t rounds, double operations, Reg zero, Step step) {
  Reg acc[kChains];
#pragma GCC unroll 12
  for (int i = 0; i < kChains; ++i) acc[i] = zero;
  for (std::int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) acc[i] = step(acc[i]);
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) __asm__ volatile("" : "+x"(acc[i]));
  }
  return static_cast<double>(rounds) * kChains * operations;
}

double fp32(std::int64_t rounds) {
  __m256 a = _mm256_set1_ps(1.0f), b = _mm256_set1_ps(1e-8f);
  __asm__ volatile("" : "+x"(a), "+x"(b));
  return run(rounds, 16, _mm256_setzero_ps(), [=](__m256 c) { return _mm256_fmadd_ps(a, b, c); });
}
double int8(std::int64_t rounds) {
  __m256i a = _mm256_set1_epi8(1), ones = _mm256_set1_epi16(1);
  __asm__ volatile("" : "+x"(a), "+x"(ones));
  return run(rounds, 64, _mm256_setzero_si256(), [=](__m256i c) {
    __m256i b = a;
    __asm__ volatile("" : "+x"(b));
    return _mm256_add_epi32(c, _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), ones));
  });
}
std::uint64_t read(const std::uint8_t* data, std::size_t bytes) {
  __m256i sum[8];
  for (auto& s : sum) s = _mm256_setzero_si256();
  for (std::size_t i = 0; i < bytes; i += 256) {
    _mm_prefetch(reinterpret_cast<const char*>(data + i + 2048), _MM_HINT_T0);
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j)
      sum[j] = _mm256_xor_si256(sum[j], _mm256_loadu_si256(reinterpret_cast<const __m256i*>(data + i + j * 32)));
  }
  for (int j = 1; j < 8; ++j) sum[0] = _mm256_xor_si256(sum[0], sum[j]);
  return static_cast<std::uint64_t>(_mm256_extract_epi64(sum[0], 0) ^ _mm256_extract_epi64(sum[0], 1) ^
                                    _mm256_extract_epi64(sum[0], 2) ^ _mm256_extract_epi64(sum[0], 3));
}

}  // namespace

const ProbeLoops& probe_avx2() {
  static constexpr ProbeLoops loops = {fp32, fp32, int8, read};
  return loops;
}

}  // namespace supersonic::cpu
#endif
