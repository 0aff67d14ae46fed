// Every weight format on the CPU: what its decoder, its product with one row of activations and its
// product with many yield, so that a format that lags behind shows.
//
//   format_bench [threads] [filter]
//
// decode: floats written per second by one thread, tile by tile into a buffer that stays in L1, the
// way weights enter products of floats and training. one row: weights per second of an int8 product
// whose matrix lies in memory, not in a cache, with its bytes as a fraction of the probed read
// bandwidth: decoding of tokens. 512 rows: operations per second of an int8 product, as a fraction
// of the probed arithmetic limit: prefill.
#include <fmt/core.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "backend/cpu/kernels/gemm.h"
#include "backend/cpu/kernels/gemm_source.h"
#include "backend/cpu/kernels/probe.h"
#include "best_seconds.h"
#include "support/scales.h"

using namespace supersonic;
using namespace supersonic::cpu;

namespace {

constexpr std::int64_t kCols = 4096, kTileRows = 64;
constexpr double kBudget = 0.3;  // seconds of a measurement

// rows x kCols random weights; large matrices repeat a tile of rows, which costs the same to read.
struct Weight {
  MatrixRef ref;
  std::vector<std::uint8_t> planes[kMaxPlanes];

  Weight(const Format& f, std::int64_t rows) {
    ref.rows = rows, ref.cols = kCols, ref.ld = kCols, ref.dtype = DType::quant, ref.format = &f;
    void* out[kMaxPlanes] = {};
    for (int p = 0; p < f.planes; ++p) {
      planes[p].resize(f.plane_bytes(f, p, rows, kCols));
      ref.planes.data[p] = out[p] = planes[p].data();
    }
    fill(f, f.plane_bytes(f, 0, kTileRows, kCols), out);
    for (int p = 0; p < f.planes; ++p) {
      const std::size_t done = f.plane_bytes(f, p, kTileRows, kCols);
      for (std::size_t at = done; at < planes[p].size(); ++at) planes[p][at] = planes[p][at - done];
    }
  }

  std::size_t bytes() const {
    std::size_t sum = 0;
    for (const auto& p : planes) sum += p.size();
    return sum;
  }

 private:
  void fill(const Format& f, std::size_t bytes, void* const* out) {
    std::mt19937 rng(2);
    if (f.encode) {
      std::vector<float> w(static_cast<std::size_t>(kTileRows * kCols));
      for (auto& x : w) x = static_cast<float>(rng() % 2001) / 1000.0f - 1.0f;
      return f.encode(w.data(), kTileRows, kCols, out);
    }
    for (std::size_t i = 0; i < bytes; ++i) planes[0][i] = static_cast<std::uint8_t>(rng());
    for (std::size_t b = 0; b < bytes; b += static_cast<std::size_t>(f.block_bytes))
      testing::set_scale(f, planes[0].data() + b, 0.01f);
  }
};

double decode_rate(const Format& f) {
  const Weight w(f, kTileRows);
  const Source source = gemm_parts::source_of(w.ref);
  std::vector<float> out(kCols);
  const double seconds = best_seconds(
      [&] {
        for (std::int64_t r = 0; r < kTileRows; ++r)
          gemm_parts::inner().to_f32(source, r * kCols, kCols, out.data());
      },
      kBudget);
  return static_cast<double>(kTileRows * kCols) * 4 / seconds;
}

double product_seconds(Pool& pool, const Weight& w, std::int64_t m) {
  const std::int64_t n = w.ref.rows;
  std::vector<float> x(static_cast<std::size_t>(m * kCols)), y(static_cast<std::size_t>(m * n));
  std::mt19937 rng(3);
  for (auto& v : x) v = static_cast<float>(rng() % 2001) / 1000.0f - 1.0f;
  std::vector<std::uint8_t> rows(int8_rows_bytes(m, kCols));
  quantize_int8_rows(pool, x.data(), DType::f32, m, kCols, kCols, rows.data());
  const GemmTerm term{
      {.data = rows.data(), .dtype = DType::i8, .rows = m, .cols = kCols}, false, w.ref, false};
  GemmProblem p;
  p.m = m, p.n = n, p.terms = {&term, 1}, p.y = y.data(), p.ldy = n, p.compute = Compute::int8;
  std::vector<std::uint8_t> workspace(gemm_workspace(p, pool.threads()));
  return best_seconds([&] { gemm(pool, p, workspace.data()); }, kBudget);
}

void row(Pool& pool, const Limits& limits, const Format& f) {
  constexpr std::int64_t kRows = 65536, kManyColumns = 2048, kMany = 512;
  const Weight large(f, kRows), small(f, kManyColumns);
  const double one = product_seconds(pool, large, 1), many = product_seconds(pool, small, kMany);
  const double read = static_cast<double>(large.bytes()) / one;
  const double operations = 2.0 * kMany * kManyColumns * kCols / many;
  fmt::print("{:<10} {:5.2f} GB/s  {:6.2f} Gweights/s {:5.1f} %  {:7.1f} Gop/s {:5.1f} %\n", f.name,
             decode_rate(f) * 1e-9, static_cast<double>(kRows * kCols) / one * 1e-9,
             100 * read / limits.read, operations * 1e-9, 100 * operations / limits.int8);
}

}  // namespace

int main(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  Pool pool(argc > 1 ? std::atoi(argv[1]) : 2);
  const Limits limits = probe_limits(pool);
  fmt::print("{} with {} threads: int8 {:.0f} Gop/s, read {:.1f} GB/s\n", name_of(isa()),
             pool.threads(), limits.int8 * 1e-9, limits.read * 1e-9);
  fmt::print("{:<10} {:>10} {:>24} {:>23}\n", "format", "decode", "one row", "512 rows");
  for (const Format* f : all_formats())
    if (argc < 3 || f->name.find(argv[2]) != std::string_view::npos) row(pool, limits, *f);
}
