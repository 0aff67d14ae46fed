// The GPU's kernels that are bound by bandwidth: bytes that must move at the least (each operand
// read once, each result written once) over the time of a launch, against a copy within the
// device's memory. Arrays exceed the second-level cache.
// Products of few rows are timed as a captured program runs them: one after another, each reading
// what the last one wrote, over weights of more than the cache; the time of a launch is in the
// rate.
//   gpu_row_kernels_bench [DEVICE]        DEVICE: cuda (default), cuda:1
#include "core/executor.h"
#include "gpu_bench.h"
#include "ops/adamw.h"
#include "ops/dequantize.h"
#include "ops/gemm.h"
#include "ops/map/transcendental.h"
#include "ops/reduce.h"
#include "ops/rms_norm.h"
#include "ops/rope.h"

namespace supersonic {
namespace {

// x (m, k) through weights (n, k) and back through (k, n), again and again.
void few_rows(const Bench& b, const char* format, std::int64_t m, std::int64_t n, std::int64_t k) {
  const Spec out{Shape{n, k}, DType::quant, find_format(format)},
      back{Shape{k, n}, DType::quant, out.format};
  const StorageRef x = b.random({Shape{m, k}, DType::bf16, nullptr});
  std::vector<StorageRef> weights;
  std::size_t bytes = 0;
  while (bytes < std::size_t{96} << 20) {
    for (const Spec& spec : {out, back}) {
      weights.push_back(b.random(spec));
      bytes += weights.back()->bytes;
    }
  }
  Executor executor(b.gpu);
  Policy policy;
  policy.compute = Compute::bf16;
  Program program = Program::capture(
      [&] {
        Tensor y = from_storage(x);
        for (const StorageRef& w : weights) y = linear(y, from_storage(w));
        return Tensors{y};
      },
      executor, policy);
  for (int i = 0; i < 3; ++i) program.run();
  double best = 1e30;
  for (int i = 0; i < 5; ++i) {
    const auto start = std::chrono::steady_clock::now();
    program.run();
    best = std::min(
        best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  b.print(format, fmt::format("{} rows, {} x {} and back", m, n, k),
          static_cast<double>(bytes) / static_cast<double>(weights.size()),
          best / static_cast<double>(weights.size()));
}

void few_rows(const Bench& b) {
  for (const char* format : {"q4_k", "q6_k", "q4_0", "q8_0", "nf4", "q4_1", "q5_k"}) {
    for (const auto& [n, k] :
         {std::array<std::int64_t, 2>{14336, 4096}, {4096, 4096}, {1024, 4096}, {8192, 2048}})
      few_rows(b, format, 1, n, k);
    for (const std::int64_t m : {2, 4, 8}) few_rows(b, format, m, 14336, 4096);
  }
}

int run(const char* device) {
  Bench b{device_backend(device)};
  const std::int64_t big = std::int64_t{1} << 28;
  measure_copy(b);
  few_rows(b);
  const Spec wide{Shape{16384, 8192}, DType::bf16, nullptr},
      wide32{Shape{16384, 8192}, DType::f32, nullptr};
  b.kernel("chain: cast", op<Cast>(), Attrs::of(Cast{static_cast<std::int64_t>(DType::bf16)}),
           {wide32});
  b.kernel("chain: add", op<Add>(), {}, {wide, wide});
  b.kernel("chain: swiglu", op<Swiglu>(), {}, {wide, wide});
  b.kernel("chain: swiglu", op<Swiglu>(), {}, {wide32, wide32});
  for (const std::int64_t d : {576, 4096}) {
    const Spec x{Shape{65536, d}, DType::bf16, nullptr}, w{Shape{d}, DType::f32, nullptr};
    b.kernel("rms_norm", op<RmsNorm>(), Attrs::of(RmsNorm{1e-5f}), {x, w});
    b.kernel("rms_norm_grad", op<RmsNormGrad>(), Attrs::of(RmsNormGrad{1e-5f}),
             {x, w, {Shape{65536}, DType::f32, nullptr}, x});
  }
  b.kernel("rope", op<Rope>(), Attrs::of(Rope{0, 0, 1.0f}),
           {{Shape{16384, 32, 128}, DType::bf16, nullptr},
            {Shape{16384}, DType::i32, nullptr},
            {Shape{64}, DType::f32, nullptr}});
  b.kernel("sum of columns", op<Sum>(), Attrs::of(Sum{0}), {wide});
  b.kernel("sum of rows", op<Sum>(), Attrs::of(Sum{1}), {wide});
  for (const char* format : {"q4_1", "q4_k", "nf4"})
    b.kernel(format, op<Dequantize>(),
             Attrs::of(Dequantize{static_cast<std::int64_t>(DType::bf16)}),
             {{Shape{16384, 8192}, DType::quant, find_format(format)}});
  const Spec flat{Shape{big / 4}, DType::f32, nullptr}, codes{Shape{big / 4}, DType::u8, nullptr},
      maxima{Shape{big / 1024}, DType::f32, nullptr}, hyper{Shape{4}, DType::f32, nullptr},
      one{Shape{1}, DType::f32, nullptr};
  b.kernel("adamw", op<AdamW>(), Attrs::of(AdamW{0.9f, 0.99f, 1e-8f, 0.01f}),
           {flat, flat, flat, flat, hyper, one});
  b.kernel("adamw_8bit", op<AdamW8bit>(), Attrs::of(AdamW8bit{0.9f, 0.99f, 1e-8f, 0.01f}),
           {flat, codes, codes, maxima, maxima, flat, hyper, one});
  b.kernel("sum_squares", op<SumSquares>(), {}, {flat});
  return 0;
}

}  // namespace
}  // namespace supersonic

int main(int argc, char** argv) {
  try {
    return supersonic::run(argc > 1 ? argv[1] : "cuda");
  } catch (const std::exception& e) {
    fmt::print(stderr, "gpu_row_kernels_bench: {}\n", e.what());
    return 1;
  }
}
