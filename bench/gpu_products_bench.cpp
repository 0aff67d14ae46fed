// The GPU's matrix-bound kernels: products in bf16 and fp32, one-row products of every fast format,
// attention forward and backward, the head with its loss. Times are of launches back to back; small
// ones include what a launch costs.
//   gpu_products_bench [DEVICE [PART]]   DEVICE: cuda (default), cuda:1
//                                        PART: thin, products, fp8, one_row, attention or head
//                                        alone
#include "gpu_bench.h"
#include "ops/attention.h"
#include "ops/gemm.h"
#include "ops/linear_xent.h"

namespace supersonic {
namespace {

Spec dense(Shape shape, DType type = DType::bf16) { return {shape, type, nullptr}; }
Spec quant(Shape shape, const char* format) { return {shape, DType::quant, find_format(format)}; }
Attrs gemm_attrs(bool tx = false, bool tw = false) {
  return Attrs::of(Gemm{static_cast<std::int32_t>(DType::bf16), static_cast<std::uint16_t>(tx),
                        static_cast<std::uint16_t>(tw), 0});
}

void products(const Bench& b) {
  for (const auto& [m, n, k] : {std::array<std::int64_t, 3>{8192, 8192, 8192},
                                {4096, 14336, 4096},
                                {4096, 4096, 14336},
                                {2048, 4096, 4096},
                                {1024, 1536, 576}}) {
    const double flops = 2.0 * static_cast<double>(m * n) * static_cast<double>(k);
    b.kernel("x W^T", op<Gemm>(), gemm_attrs(), {dense({m, k}), dense({n, k})}, Compute::bf16,
             flops);
    b.kernel("dy W", op<Gemm>(), gemm_attrs(false, true), {dense({m, k}), dense({k, n})},
             Compute::bf16, flops);
    b.kernel("dy^T x", op<Gemm>(), gemm_attrs(true, true), {dense({k, m}), dense({k, n})},
             Compute::bf16, flops);
    b.kernel("x W^T, nf4", op<Gemm>(), gemm_attrs(), {dense({m, k}), quant({n, k}, "nf4")},
             Compute::bf16, flops);
  }
  b.kernel("x W^T, fp32", op<Gemm>(), gemm_attrs(),
           {dense({4096, 4096}, DType::f32), dense({4096, 4096}, DType::f32)}, Compute::fp32,
           2.0 * 4096 * 4096 * 4096);
}

void one_row(const Bench& b) {
  for (const char* format : {"q4_0", "q4_1", "q5_0", "q8_0", "q4_k", "q5_k", "q6_k", "nf4"})
    for (const auto& [n, k] : {std::array<std::int64_t, 2>{32768, 8192}, {14336, 4096}})
      b.kernel(format, op<Gemm>(), gemm_attrs(), {dense({1, k}), quant({n, k}, format)},
               Compute::bf16);
  b.kernel("bf16", op<Gemm>(), gemm_attrs(), {dense({1, 8192}), dense({16384, 8192})},
           Compute::bf16);
}

// Frozen weights in E4M3 with the kernel's own decoding; rows of codes are made apart, as a plan does.
void narrow(const Bench& b) {
  const Attrs forward = gemm_attrs(), back = gemm_attrs(false, true);
  for (const auto& [m, n, k] : {std::array<std::int64_t, 3>{4096, 14336, 4096},
                                {4096, 4096, 14336},
                                {4096, 4096, 4096},
                                {4096, 1024, 4096},
                                {2048, 4096, 4096},
                                {512, 4096, 4096}}) {
    const double flops = 2.0 * static_cast<double>(m * n) * static_cast<double>(k);
    for (const Compute compute : {Compute::fp8, Compute::bf16}) {
      const std::string name = fmt::format(", q4_k, {}", name_of(compute));
      b.kernel(("x W^T" + name).c_str(), op<Gemm>(), forward, {dense({m, k}), quant({n, k}, "q4_k")},
               compute, flops);
      if (n % 256 == 0)
        b.kernel(("dy W" + name).c_str(), op<Gemm>(), back, {dense({m, k}), quant({k, n}, "q4_k")},
                 compute, flops);
    }
  }
}

// An adapter's part of a training step: into it and back, and the gradients of its matrices.
void thin(const Bench& b) {
  const std::int64_t t = 4096, d = 4096;
  auto sum = [&](std::int64_t m, std::int64_t n) {
    b.kernel("dA, dB += dy^T x", op<GemmAccumulate>(),
             Attrs::of(GemmAccumulate{gemm_attrs(true, true).as<Gemm>()}),
             {dense({m, n}, DType::f32), dense({t, m}), dense({t, n})}, Compute::bf16);
  };
  for (const std::int64_t rank : {16, 8, 32, 64, 128, 256})
    for (const std::int64_t k : {std::int64_t{1024}, d, std::int64_t{14336}}) {
      if (rank != 16 && k != d) continue;
      b.kernel("x A^T", op<Gemm>(), gemm_attrs(), {dense({t, k}), dense({rank, k}, DType::f32)},
               Compute::bf16);
      b.kernel("dy B", op<Gemm>(), gemm_attrs(false, true),
               {dense({t, k}), dense({k, rank}, DType::f32)}, Compute::bf16);
      sum(rank, k);
      sum(k, rank);
    }
  b.kernel("x W^T + t B^T", op<Gemm>(), gemm_attrs(),
           {dense({t, d}), quant({d, d}, "q4_k"), dense({t, 16}), dense({d, 16}, DType::f32)},
           Compute::bf16, 2.0 * static_cast<double>(t * d) * static_cast<double>(d));
}

void head(const Bench& b) {
  struct Size {
    std::int64_t t, v, d;
    const char* format;
  };
  const Bench::Ints spread = [](std::size_t, std::int64_t i) { return i * 7919 % 49152; };
  for (const Size& s : {Size{4096, 128256, 4096, nullptr},
                        {4096, 128256, 4096, "q6_k"},
                        {8192, 128256, 4096, "q6_k"},
                        {8192, 128256, 2048, "q6_k"},
                        {8192, 49152, 576, nullptr},
                        {8192, 49152, 576, "q8_0"}}) {
    const double flops =
        4.0 * static_cast<double>(s.t) * static_cast<double>(s.v) * static_cast<double>(s.d);
    b.kernel("linear_xent", op<LinearXent>(), {},
             {dense({s.t, s.d}), s.format ? quant({s.v, s.d}, s.format) : dense({s.v, s.d}),
              dense({s.t}, DType::i32), dense({1}, DType::f32)},
             Compute::bf16, flops, spread);
  }
}

void attention(const Bench& b) {
  const Bench::Ints causal = [](std::size_t input, std::int64_t i) { return input == 3 ? 0 : i; };
  for (const auto& [t, h, g, d] :
       {std::array<std::int64_t, 4>{2048, 32, 8, 128}, {8192, 32, 8, 128}, {8192, 32, 8, 64}}) {
    const double flops = 4.0 * static_cast<double>(t * t) * static_cast<double>(h * d) / 2;
    const Spec q = dense({t, h, d}), kv = dense({t, g, d}), row = dense({t}, DType::i32);
    b.kernel("attention, causal", op<Attention>(), Attrs::of(Attention{0.1f}),
             {q, kv, kv, row, row}, Compute::bf16, flops, causal);
    b.kernel("attention_grad, causal", op<AttentionGrad>(), Attrs::of(AttentionGrad{0.1f}),
             {q, kv, kv, row, row, q, dense({t, h}, DType::f32), q}, Compute::bf16, 2.5 * flops,
             causal);
  }
}

int run(const char* device, std::string_view part) {
  Bench b{device_backend(device)};
  measure_copy(b);
  b.signs = true;
  const auto wanted = [&](std::string_view name) { return part.empty() || part == name; };
  if (wanted("thin")) thin(b);
  if (wanted("products")) products(b);
  if (wanted("fp8")) narrow(b);
  if (wanted("one_row")) one_row(b);
  if (wanted("attention")) attention(b);
  if (wanted("head")) head(b);
  return 0;
}

}  // namespace
}  // namespace supersonic

int main(int argc, char** argv) {
  try {
    return supersonic::run(argc > 1 ? argv[1] : "cuda", argc > 2 ? argv[2] : "");
  } catch (const std::exception& e) {
    fmt::print(stderr, "gpu_products_bench: {}\n", e.what());
    return 1;
  }
}
