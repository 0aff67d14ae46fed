// Probe loops for any processor: four-lane vectors for fp32, a plain int8 dot product as the compiler vectorizes it.
#include "backend/cpu/kernels/probe_inner.h"

namespace supersonic::cpu {
namespace {

typedef float Vec __attribute__((vector_size(16)));
constexpr int kChains = 12;

double fp32(std::int64_t rounds) {
  volatile float source = 1e-8f;
  const Vec a = Vec{} + source, b = Vec{} + source;
  Vec acc[kChains] = {};
  for (std::int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) acc[i] += a * b;
    __asm__ volatile("" : : : "memory");
  }
  volatile float sink = 0;
  for (const Vec& v : acc) sink = sink + v[0];
  return static_cast<double>(rounds) * kChains * 8;
}
double int8(std::int64_t rounds) {
  static const std::int8_t a[1024] = {1}, b[1024] = {2};
  volatile std::int32_t sink = 0;
  for (std::int64_t r = 0; r < rounds; r += 8) {
    const std::int8_t *x = a, *y = b;
    __asm__ volatile("" : "+r"(x), "+r"(y));
    std::int32_t sum = 0;
    for (int i = 0; i < 1024; ++i) sum += x[i] * y[i];
    sink = sink + sum;
  }
  return static_cast<double>((rounds + 7) / 8) * 2048;
}
std::uint64_t read(const std::uint8_t* data, std::size_t bytes) {
  std::uint64_t sum[8] = {};
  for (std::size_t i = 0; i < bytes; i += 64)
    for (int j = 0; j < 8; ++j) {
      std::uint64_t word;
      __builtin_memcpy(&word, data + i + j * 8, 8);
      sum[j] ^= word;
    }
  std::uint64_t all = 0;
  for (auto s : sum) all ^= s;
  return all;
}

}  // namespace

const ProbeLoops& probe_portable() {
  static constexpr ProbeLoops loops = {fp32, fp32, int8, read};
  return loops;
}

}  // namespace supersonic::cpu
