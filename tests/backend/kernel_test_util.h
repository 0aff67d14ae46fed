// Helpers of the kernel tests: random data, deliberately misaligned and poisoned buffers, and the
// instruction sets of this machine.
#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "backend/cpu/pool.h"
#include "core/dtype.h"

namespace supersonic::cpu::test {

inline std::vector<Isa> levels() {
  std::vector<Isa> list{Isa::portable};
  if (isa() >= Isa::avx2) list.push_back(Isa::avx2);
  if (isa() >= Isa::avx512) list.push_back(Isa::avx512);
  return list;
}

// n floats or bf16 values, one element off any alignment, with guards behind the end. Outputs start
// as NaN.
class Buffer {
 public:
  Buffer() = default;
  Buffer(DType type, std::int64_t n)
      : type_(type), n_(n), bytes_(size_of(type) * static_cast<std::size_t>(n + 1) + 64, 0xff) {}
  Buffer(DType type, std::int64_t n, std::mt19937& rng, float scale = 1) : Buffer(type, n) {
    std::normal_distribution<float> normal(0, scale);
    for (std::int64_t i = 0; i < n; ++i) set(i, normal(rng));
  }
  void* data() { return bytes_.data() + size_of(type_); }
  const void* data() const { return bytes_.data() + size_of(type_); }
  float* f32() { return static_cast<float*>(data()); }
  std::int64_t size() const { return n_; }
  void set(std::int64_t i, float x) {
    if (type_ == DType::f32) std::memcpy(at(i), &x, 4);
    if (type_ == DType::bf16) std::memcpy(at(i), &(tmp16_ = bf16(x).bits), 2);
    if (type_ == DType::f16) std::memcpy(at(i), &(tmp16_ = f16(x).bits), 2);
  }
  double operator[](std::int64_t i) const {
    const unsigned char* p =
        static_cast<const unsigned char*>(data()) + static_cast<std::size_t>(i) * size_of(type_);
    if (type_ == DType::f32) {
      float x;
      std::memcpy(&x, p, 4);
      return x;
    }
    std::uint16_t h;
    std::memcpy(&h, p, 2);
    if (type_ == DType::bf16) {
      bf16 x;
      x.bits = h;
      return static_cast<float>(x);
    }
    f16 x;
    x.bits = h;
    return static_cast<float>(x);
  }
  bool guard_intact() const {
    for (std::size_t i = size_of(type_) * static_cast<std::size_t>(n_ + 1); i < bytes_.size(); ++i)
      if (bytes_[i] != 0xff) return false;
    return true;
  }

 private:
  void* at(std::int64_t i) {
    return static_cast<unsigned char*>(data()) + static_cast<std::size_t>(i) * size_of(type_);
  }
  DType type_ = DType::f32;
  std::int64_t n_ = 0;
  std::uint16_t tmp16_ = 0;
  std::vector<unsigned char> bytes_;
};

// Relative L2 error of `got` against fp64 values; NaN when any element is.
inline double relative_error(const Buffer& got, const std::vector<double>& want) {
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    const double d = got[static_cast<std::int64_t>(i)] - want[i];
    difference += d * d;
    norm += want[i] * want[i];
  }
  return std::sqrt(difference / (norm > 0 ? norm : 1));
}

// What one rounding of the type costs in relative L2 error, with room for fp32 sums: bf16 keeps 8
// bits, f32 24.
inline double tolerance(DType type) { return type == DType::bf16 ? 4e-3 : 2e-6; }

}  // namespace supersonic::cpu::test
