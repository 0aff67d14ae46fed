// Codes of a KV cache as operands of the tensor cores: rows of a head in shared memory, pairs of
// codes as pairs of binary16. Both formats' codes are binary16 numbers exactly; the scales of Q8_0
// stay apart where they can.
//
// A row is a head of one token: D codes of FP8, or D / 32 blocks of Q8_0, each a binary16 scale and
// 32 codes, so that the codes of even blocks begin two bytes off a word. Rows of Q8_0 begin at any
// multiple of four; they are copied from the multiple of 16 before to the one behind, and keep
// their place between those.
#pragma once
#include <cuda_fp8.h>

#include <type_traits>

#include "backend/cuda/kernels/mma.cuh"

namespace supersonic::cuda {

template <bool q8, int D>
struct CodedRow {
  static constexpr int bytes = q8 ? D / 32 * 34 : D,
                       pieces = D / 16 + q8,  // of 16 bytes, however the row lies
      abreast = 32 / pieces,                  // rows that a warp copies at once
      pitch = D + 16;                         // words of eight rows lie in different banks
  // Of Q8_0's rows of 64 any multiple of four is left over, of those of 128 eight, of 256 none.
  static_assert(16 - bytes % 16 == (D == 64 ? 12 : D == 128 ? 8 : 16) || !q8);
  static_assert(pieces * 16 <= pitch && pitch % 16 == 0);
};

// sum (16, 8) += a (16, 16) * b (16, 8), binary16 operands.
__device__ inline void multiply_add_f16(float (&sum)[4], const std::uint32_t (&a)[4],
                                        std::uint32_t b0, std::uint32_t b1) {
#if __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#endif
}

// Lane (g, t) has the elements 2t and 2t + 1 of row g of an 8 x 8 matrix; it gets those of column
// g.
__device__ inline std::uint32_t transposed(std::uint32_t pair) {
  std::uint32_t out;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(out) : "r"(pair));
  return out;
}

__device__ inline std::uint32_t pack_f16(float low, float high) {
  const __half2 pair = __floats2half2_rn(low, high);
  return *reinterpret_cast<const std::uint32_t*>(&pair);
}

// Two neighbouring codes of four as binary16; those of Q8_0 come with their sign bits turned.
template <bool q8, bool upper>
__device__ std::uint32_t pair_of(std::uint32_t codes) {
  if constexpr (q8) {  // 1024 + 128 + code
    const std::uint32_t raised = __byte_perm(codes, 0x64646464u, upper ? 0x4342 : 0x4140);
    const __half2 x =
        __hsub2(*reinterpret_cast<const __half2*>(&raised), __half2half2(__ushort_as_half(0x6480)));
    return *reinterpret_cast<const std::uint32_t*>(&x);
  } else {
    const __half2_raw x = __nv_cvt_fp8x2_to_halfraw2(
        static_cast<__nv_fp8x2_storage_t>(upper ? codes >> 16 : codes & 0xffff), __NV_E4M3);
    return static_cast<std::uint32_t>(x.x) | static_cast<std::uint32_t>(x.y) << 16;
  }
}
__device__ inline std::uint32_t scaled_pair(std::uint32_t pair, std::uint32_t scales) {
  const __half2 x =
      __hmul2(*reinterpret_cast<const __half2*>(&pair), *reinterpret_cast<const __half2*>(&scales));
  return *reinterpret_cast<const std::uint32_t*>(&x);
}

__device__ inline std::uint32_t word_at(const char* p) {
  return *reinterpret_cast<const std::uint32_t*>(p);
}
__device__ inline std::uint32_t half_at(const char* p) {
  return *reinterpret_cast<const std::uint16_t*>(p);
}
constexpr std::uint32_t kSigns = 0x80808080u;

// Codes 4 i ... 4 i + 3 of a row; of Q8_0 within block b, whose scale is number_scale().
template <bool q8>
__device__ std::uint32_t four_codes(const char* row, int b, int i) {
  if constexpr (!q8) {
    return word_at(row + 32 * b + 4 * i);
  } else {
    const char* at = row + 34 * b + 4 * i;
    return (b % 2 ? word_at(at + 2) : __funnelshift_r(word_at(at), word_at(at + 4), 16)) ^ kSigns;
  }
}
__device__ inline float block_scale(const char* row, int b) {
  return __half2float(__ushort_as_half(static_cast<unsigned short>(half_at(row + 34 * b))));
}

// The codes of D / 8 neighbouring numbers of a row, those of lane group g.
template <bool q8, int D>
__device__ void eighth_of_row(const char* row, int g, std::uint32_t (&codes)[D / 32]) {
  constexpr int words = D / 32;
  if constexpr (q8) {
    const int first = g * (D / 8), at = first / 32 * 34 + 2 + first % 32;
    const char* from = row + (at & ~3);
    const unsigned select = at & 2 ? 0x5432 : 0x3210;
    std::uint32_t raw[words + 1];
#pragma unroll
    for (int i = 0; i <= words; ++i) raw[i] = word_at(from + 4 * i);
#pragma unroll
    for (int i = 0; i < words; ++i) codes[i] = __byte_perm(raw[i], raw[i + 1], select) ^ kSigns;
  } else {
    using Wide = std::conditional_t<D == 64, uint2, uint4>;  // conflicts in no bank
    constexpr int kWords = sizeof(Wide) / 4;
#pragma unroll
    for (int i = 0; i < words / kWords; ++i) {
      const Wide wide = reinterpret_cast<const Wide*>(row + g * (D / 8))[i];
      codes[kWords * i] = wide.x, codes[kWords * i + 1] = wide.y;
      if constexpr (kWords == 4) codes[4 * i + 2] = wide.z, codes[4 * i + 3] = wide.w;
    }
  }
}

}  // namespace supersonic::cuda
