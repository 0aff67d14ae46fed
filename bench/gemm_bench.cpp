// Matrix products at the shapes of a 135 M parameter Llama (and decode at larger ones): rate and fraction of the limit
// that this machine shows now. Many rows: operations of the products against the probed arithmetic limit, decoding and
// packing included. Few rows: weight bytes against the probed read bandwidth, the weights far larger than the caches.
//
//   gemm_bench [threads] [filter]
#include <fmt/core.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "backend/cpu/kernels/gemm.h"
#include "backend/cpu/kernels/probe.h"
#include "best_seconds.h"

using namespace supersonic;
using namespace supersonic::cpu;

namespace {

constexpr double kBudget = 0.4;  // seconds of a measurement

struct Bench {
  Pool& pool;
  Limits limits;
  std::string filter;
};

std::vector<std::uint8_t> random_elements(DType t, std::int64_t count) {
  std::vector<std::uint8_t> bytes(static_cast<std::size_t>(count) * size_of(t));
  std::mt19937 rng(1);
  for (std::int64_t i = 0; i < count; ++i) {
    const float x = static_cast<float>(rng() % 2001) / 1000.0f - 1.0f;
    const bf16 h(x);
    std::memcpy(bytes.data() + static_cast<std::size_t>(i) * size_of(t), t == DType::f32 ? static_cast<const void*>(&x) : &h, size_of(t));
  }
  return bytes;
}

// A weight matrix, dense or quantized; large ones repeat a few rows, which costs the same to read.
struct Weight {
  MatrixRef ref;
  std::vector<std::uint8_t> planes[kMaxPlanes];
  Weight(const std::string& type, std::int64_t rows, std::int64_t cols) {
    ref.rows = rows, ref.cols = cols, ref.ld = cols;
    const Format* f = find_format(type);
    if (!f) {
      ref.dtype = type == "f32" ? DType::f32 : DType::bf16;
      planes[0] = random_elements(ref.dtype, rows * cols);
      ref.data = planes[0].data();
      return;
    }
    ref.dtype = DType::quant;
    ref.format = f;
    const std::int64_t some = f->planes == 1 ? std::min<std::int64_t>(rows, 64) : rows;
    void* out[kMaxPlanes] = {};
    for (int p = 0; p < f->planes; ++p) {
      planes[p].resize(f->plane_bytes(*f, p, rows, cols));
      out[p] = planes[p].data();
      ref.planes.data[p] = out[p];
    }
    std::vector<float> w(static_cast<std::size_t>(some * cols));
    std::mt19937 rng(2);
    for (auto& x : w) x = static_cast<float>(rng() % 2001) / 1000.0f - 1.0f;
    if (f->encode)
      f->encode(w.data(), some, cols, out);
    else  // read only: bytes of which every format makes small numbers
      std::fill(planes[0].begin(), planes[0].end(), std::uint8_t{0x1c});
    const std::size_t done = f->plane_bytes(*f, 0, some, cols);
    for (std::size_t at = done; at < planes[0].size(); at += done)
      std::memcpy(planes[0].data() + at, planes[0].data(), std::min(done, planes[0].size() - at));
  }
  std::size_t bytes() const {
    std::size_t sum = 0;
    for (const auto& p : planes) sum += p.size();
    return sum;
  }
};

struct Shape2 {
  std::int64_t m, n, k;
};

struct Row {
  std::string name;
  Shape2 shape;
  std::string weight;
  DType x = DType::bf16;  // i8: prepared rows
  bool trans_x = false, trans_w = false;
  int rank = 0;  // an extra LoRA term
  Compute compute = Compute::bf16;
  DType y = DType::bf16;
};

double seconds_of(Bench& b, const Row& r, std::size_t* weight_bytes = nullptr, std::size_t least_bytes = 0) {
  const auto [m, n, k] = r.shape;
  Weight one(r.weight, r.trans_w ? k : n, r.trans_w ? n : k);
  // Several copies, so that a product with few rows finds its weights in memory, not in a cache.
  std::vector<std::unique_ptr<Weight>> weights;
  const std::size_t copies = std::max<std::size_t>(1, (least_bytes + one.bytes() - 1) / one.bytes());
  for (std::size_t i = 0; i < copies; ++i) weights.push_back(std::make_unique<Weight>(r.weight, one.ref.rows, one.ref.cols));
  const DType stored = r.x == DType::i8 ? DType::bf16 : r.x;
  auto x = random_elements(stored, m * k), t = random_elements(DType::bf16, m * 16), lora = random_elements(DType::bf16, n * 16);
  std::vector<std::uint8_t> rows(int8_rows_bytes(m, k)), y(static_cast<std::size_t>(m * n) * size_of(r.y));
  GemmTerm terms[2];
  terms[0].x = {.data = x.data(), .dtype = stored, .rows = r.trans_x ? k : m, .cols = r.trans_x ? m : k, .ld = r.trans_x ? m : k};
  if (r.x == DType::i8) {
    quantize_int8_rows(b.pool, x.data(), stored, m, k, k, rows.data());
    terms[0].x = {.data = rows.data(), .dtype = DType::i8, .rows = m, .cols = k};
  }
  terms[0].trans_x = r.trans_x, terms[0].trans_w = r.trans_w;
  terms[1].x = {.data = t.data(), .dtype = DType::bf16, .rows = m, .cols = 16, .ld = 16};
  terms[1].w = {.data = lora.data(), .dtype = DType::bf16, .rows = n, .cols = 16, .ld = 16};
  GemmProblem p;
  p.m = m, p.n = n, p.terms = {terms, r.rank ? 2u : 1u}, p.y = y.data(), p.y_dtype = r.y, p.ldy = n, p.compute = r.compute;
  terms[0].w = weights[0]->ref;
  std::vector<std::uint8_t> workspace(gemm_workspace(p, b.pool.threads()));
  if (weight_bytes) *weight_bytes = one.bytes();
  const double all = best_seconds([&] {
    for (auto& w : weights) {
      terms[0].w = w->ref;
      gemm(b.pool, p, workspace.data());
    }
  }, kBudget);
  return all / static_cast<double>(copies);
}

bool skipped(const Bench& b, const std::string& name) { return name.find(b.filter) == std::string::npos; }

void arithmetic_row(Bench& b, const Row& r) {
  const std::string name = fmt::format("{:<22} {:>5}x{:>5}x{:>5} {:<5}{}{}", r.name, r.shape.m, r.shape.n, r.shape.k, r.weight, r.trans_w ? "^T" : "  ", r.rank ? "+16" : "   ");
  if (skipped(b, name)) return;
  const double seconds = seconds_of(b, r);
  const double operations = 2.0 * static_cast<double>(r.shape.m * r.shape.n) * static_cast<double>(r.shape.k + r.rank);
  const double limit = r.x == DType::i8 ? b.limits.int8 : r.compute == Compute::fp32 ? b.limits.fp32 : b.limits.bf16;
  fmt::print("{} {:9.1f} us {:8.1f} Gop/s {:5.1f} %\n", name, seconds * 1e6, operations / seconds * 1e-9, 100 * operations / seconds / limit);
}

void bandwidth_row(Bench& b, const Row& r) {
  const std::string name = fmt::format("{:<22} {:>5}x{:>5}x{:>5} {:<5}     ", r.name, r.shape.m, r.shape.n, r.shape.k, r.weight);
  if (skipped(b, name)) return;
  std::size_t bytes = 0;
  const double seconds = seconds_of(b, r, &bytes, std::size_t{160} << 20);
  const double rate = static_cast<double>(bytes) / seconds;
  fmt::print("{} {:9.1f} us {:8.1f} GB/s   {:5.1f} %\n", name, seconds * 1e6, rate * 1e-9, 100 * rate / b.limits.read);
}

}  // namespace

int main(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  Pool pool(argc > 1 ? std::atoi(argv[1]) : 2);
  Bench b{pool, probe_limits(pool), argc > 2 ? argv[2] : ""};
  fmt::print("{} with {} threads: fp32 {:.0f} GF/s, bf16 {:.0f} GF/s, int8 {:.0f} Gop/s, read {:.1f} GB/s\n", name_of(isa()), pool.threads(),
             b.limits.fp32 * 1e-9, b.limits.bf16 * 1e-9, b.limits.int8 * 1e-9, b.limits.read * 1e-9);
  const Shape2 layers[] = {{1024, 576, 576}, {1024, 192, 576}, {1024, 1536, 576}, {1024, 576, 1536}};
  for (const char* w : {"bf16", "q4_1", "q4_0", "nf4"})
    for (const auto& s : layers) arithmetic_row(b, {.name = "train forward bf16", .shape = s, .weight = w, .rank = 16});
  arithmetic_row(b, {.name = "train forward bf16", .shape = {1024, 2048, 2048}, .weight = "q4_k", .rank = 16});
  arithmetic_row(b, {.name = "train forward bf16", .shape = {1024, 2048, 2048}, .weight = "q6_k", .rank = 16});
  for (const char* w : {"bf16", "q4_1", "q4_0", "nf4"})
    for (const auto& s : layers) arithmetic_row(b, {.name = "train dx bf16", .shape = {s.m, s.k, s.n}, .weight = w, .trans_w = true, .rank = 16});
  arithmetic_row(b, {.name = "train forward bf16", .shape = {1024, 2048, 2048}, .weight = "iq4_xs", .rank = 16});
  arithmetic_row(b, {.name = "train dx bf16", .shape = {1024, 2048, 2048}, .weight = "q4_k", .trans_w = true});
  for (const auto& s : layers) arithmetic_row(b, {.name = "x A^T", .shape = {1024, 16, s.k}, .weight = "bf16"});
  for (const auto& s : layers) arithmetic_row(b, {.name = "dA = t^T x", .shape = {16, s.k, 1024}, .weight = "bf16", .trans_x = true, .trans_w = true, .y = DType::f32});
  for (const auto& s : layers) arithmetic_row(b, {.name = "dB = dy^T t", .shape = {s.n, 16, 1024}, .weight = "bf16", .trans_x = true, .trans_w = true, .y = DType::f32});
  for (const char* w : {"q8_0", "q4_1", "q6_k"})
    arithmetic_row(b, {.name = "head chunk", .shape = {1024, 4096, 576 + (w[1] == '6' ? 192 : 0)}, .weight = w});
  arithmetic_row(b, {.name = "head chunk dx", .shape = {1024, 576, 4096}, .weight = "q8_0", .trans_w = true});
  for (const char* w : {"f32", "q4_1"})
    for (const auto& s : layers) arithmetic_row(b, {.name = "forward fp32", .shape = s, .weight = w, .x = DType::f32, .compute = Compute::fp32, .y = DType::f32});
  arithmetic_row(b, {.name = "dx fp32", .shape = {1024, 576, 1536}, .weight = "q4_1", .x = DType::f32, .trans_w = true, .compute = Compute::fp32, .y = DType::f32});
  for (const char* w : {"q4_1", "q4_0", "q8_0"})
    for (const auto& s : layers) arithmetic_row(b, {.name = "prefill int8", .shape = {512, s.n, s.k}, .weight = w, .x = DType::i8, .compute = Compute::int8});
  for (const char* w : {"q4_k", "q6_k", "q3_k", "iq4_nl", "iq4_xs", "mxfp4"})
    arithmetic_row(b, {.name = "prefill int8", .shape = {512, 2048, 2048}, .weight = w, .x = DType::i8, .compute = Compute::int8});
  for (const char* w : {"q4_1", "q4_0", "q8_0"}) {
    bandwidth_row(b, {.name = "decode int8", .shape = {1, 1536, 576}, .weight = w, .x = DType::i8, .compute = Compute::int8});
    bandwidth_row(b, {.name = "decode int8", .shape = {1, 576, 1536}, .weight = w, .x = DType::i8, .compute = Compute::int8});
  }
  for (const char* w : {"q4_1", "q4_0", "q8_0", "q4_k", "q6_k", "q3_k", "iq4_nl", "iq4_xs", "mxfp4"}) {
    bandwidth_row(b, {.name = "decode int8", .shape = {1, 4096, 2048}, .weight = w, .x = DType::i8, .compute = Compute::int8});
    bandwidth_row(b, {.name = "decode int8", .shape = {4, 4096, 2048}, .weight = w, .x = DType::i8, .compute = Compute::int8});
  }
  for (const char* w : {"bf16", "f32", "q4_1", "nf4"})
    for (std::int64_t m : {1, 4}) bandwidth_row(b, {.name = "decode float", .shape = {m, 4096, 2048}, .weight = w});
}
