// Rates of the CPU's row kernels at training and decoding shapes, each beside the limit that binds
// it: bytes moved against the probed read bandwidth, attention's products against the probed
// arithmetic limit. Best of several runs.
//
//   row_kernels_bench [threads] [filter]
#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "backend/cpu/kernels/adamw.h"
#include "backend/cpu/kernels/array.h"
#include "backend/cpu/kernels/attention.h"
#include "backend/cpu/kernels/embedding.h"
#include "backend/cpu/kernels/probe.h"
#include "backend/cpu/kernels/rms_norm.h"
#include "backend/cpu/kernels/rope.h"
#include "backend/cpu/kernels/softmax_xent.h"
#include "formats/format.h"

using namespace supersonic;
using namespace supersonic::cpu;

namespace {

struct Bench {
  Pool& pool;
  Limits limits;
  std::string filter;
};

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double best_seconds(const std::function<void()>& run) {
  run();
  double best = 1e30;
  const double start = now();
  for (int i = 0; i < 40 && (i < 5 || now() - start < 0.4); ++i) {
    const double t = now();
    run();
    best = std::min(best, now() - t);
  }
  return best;
}

void bytes_row(const Bench& b, const std::string& name, double bytes,
               const std::function<void()>& run) {
  if (name.find(b.filter) == std::string::npos) return;
  const double s = best_seconds(run);
  fmt::print("{:<44} {:>9.1f} us {:>8.2f} GB/s {:>6.2f} of read bandwidth\n", name, s * 1e6,
             bytes / s / 1e9, bytes / s / b.limits.read);
}
void flops_row(const Bench& b, const std::string& name, double flops, double limit,
               const std::function<void()>& run) {
  if (name.find(b.filter) == std::string::npos) return;
  const double s = best_seconds(run);
  fmt::print("{:<44} {:>9.1f} us {:>8.1f} GF/s {:>6.2f} of the limit\n", name, s * 1e6,
             flops / s / 1e9, flops / s / limit);
}

std::vector<std::uint8_t> random_values(DType type, std::int64_t n) {
  std::vector<std::uint8_t> bytes(static_cast<std::size_t>(n) * size_of(type));
  std::mt19937 rng(1);
  for (std::int64_t i = 0; i < n; ++i) {
    const float x = static_cast<float>(rng() % 2001) / 500.0f - 2.0f;
    const bf16 h(x);
    const f16 e(x);
    const void* from = type == DType::f32    ? static_cast<const void*>(&x)
                       : type == DType::bf16 ? static_cast<const void*>(&h)
                                             : &e;
    std::memcpy(bytes.data() + static_cast<std::size_t>(i) * size_of(type), from, size_of(type));
  }
  return bytes;
}

struct Ranges {
  std::string name;
  std::vector<std::int32_t> lo, hi;
  std::int64_t keys;
  double pairs() const {
    double sum = 0;
    for (std::size_t i = 0; i < lo.size(); ++i) sum += hi[i] - lo[i] + 1;
    return sum;
  }
};
Ranges packed(int count, int length) {
  Ranges r{fmt::format("{}x{}", count, length), {}, {}, std::int64_t{count} * length};
  for (int s = 0; s < count; ++s)
    for (int i = 0; i < length; ++i) r.lo.push_back(s * length), r.hi.push_back(s * length + i);
  return r;
}
Ranges decode(int queries, int keys) {
  Ranges r{fmt::format("{} on {}", queries, keys), {}, {}, keys};
  for (int i = 0; i < queries; ++i) r.lo.push_back(0), r.hi.push_back(keys - queries + i);
  return r;
}

// Keys or values as a cache has them in a format.
std::vector<std::uint8_t> coded_values(const Format& format, std::int64_t rows, std::int64_t cols) {
  const auto numbers = random_values(DType::f32, rows * cols);
  std::vector<std::uint8_t> bytes(total_bytes(format, rows, cols));
  void* planes[kMaxPlanes] = {bytes.data()};
  format.encode(reinterpret_cast<const float*>(numbers.data()), rows, cols, planes);
  return bytes;
}

void attention(const Bench& b, const Ranges& r, std::int64_t heads, std::int64_t kv_heads,
               std::int64_t d, DType type, DType kv_type, bool backward,
               CacheCodes codes = CacheCodes::none) {
  const auto queries = static_cast<std::int64_t>(r.lo.size());
  const Format* format =
      codes == CacheCodes::none ? nullptr : find_format(codes == CacheCodes::fp8 ? "fp8" : "q8_0");
  const std::string shape =
      fmt::format("{} H {}/{} D {} {}{}", r.name, heads, kv_heads, d, name_of(type),
                  format            ? fmt::format(" on {}", format->name)
                  : type == kv_type ? ""
                                    : fmt::format(" on {}", name_of(kv_type)));
  if (("attention " + shape).find(b.filter) == std::string::npos) return;
  auto q = random_values(type, queries * heads * d),
       k = format ? coded_values(*format, r.keys, kv_heads * d)
                  : random_values(kv_type, r.keys * kv_heads * d);
  auto v = k, o = q;
  std::vector<float> lse(queries * heads);
  AttentionForward f;
  f.shape = {queries, r.keys, heads, kv_heads, d, 0.125f, r.lo.data(), r.hi.data()};
  f.q = q.data(), f.k = k.data(), f.v = v.data(), f.o = o.data(), f.lse = lse.data();
  f.q_stride = f.o_stride = heads * d, f.k_stride = f.v_stride = kv_heads * d, f.type = type,
  f.kv_type = kv_type, f.kv_codes = codes;
  std::vector<std::uint8_t> workspace(attention_forward_workspace(f.shape, b.pool.threads()));
  f.workspace = workspace.data();
  const double flops = 4 * r.pairs() * static_cast<double>(heads * d);
  const double limit =
      type == DType::bf16 && kv_type == DType::bf16 ? b.limits.bf16 : b.limits.fp32;
  if (queries < 16) {
    bytes_row(b, "attention " + shape, 2.0 * static_cast<double>(k.size()),
              [&] { attention_kernels().forward(b.pool, f); });
    return;
  }
  flops_row(b, "attention " + shape, flops, limit, [&] { attention_kernels().forward(b.pool, f); });
  if (!backward) return;
  auto g = q, dq = q, dk = k, dv = k;
  AttentionBackward w;
  w.shape = f.shape;
  w.q = q.data(), w.k = k.data(), w.v = v.data(), w.o = o.data(), w.d_o = g.data(),
  w.lse = lse.data();
  w.dq = dq.data(), w.dk = dk.data(), w.dv = dv.data();
  w.q_stride = w.o_stride = w.do_stride = w.dq_stride = heads * d;
  w.k_stride = w.v_stride = w.dk_stride = w.dv_stride = kv_heads * d, w.type = type;
  workspace.resize(attention_backward_workspace(w.shape, b.pool.threads()));
  w.workspace = workspace.data();
  flops_row(b, "attention backward " + shape, 2.5 * flops, limit,
            [&] { attention_kernels().backward(b.pool, w); });
}

void norm_and_rope(const Bench& b, DType type) {
  const std::int64_t rows = 16384, d = 576, n = rows * d;
  const double size = static_cast<double>(n) * static_cast<double>(size_of(type));
  auto x = random_values(type, n), y = x, dy = x;
  auto w = random_values(DType::f32, d);
  std::vector<float> rstd(rows), dw(d);
  std::vector<std::uint8_t> workspace(rms_norm_backward_workspace(rows, d));
  const std::string suffix = fmt::format(" {}x{} {}", rows, d, name_of(type));
  bytes_row(b, "rms_norm" + suffix, 2 * size, [&] {
    rms_norm_kernels().forward(
        b.pool, {x.data(), w.data(), y.data(), rstd.data(), rows, d, 1e-5f, type, DType::f32});
  });
  for (float* gradient : {static_cast<float*>(nullptr), dw.data()})
    bytes_row(b, std::string(gradient ? "rms_norm backward with dw" : "rms_norm backward") + suffix,
              3 * size, [&] {
                rms_norm_kernels().backward(
                    b.pool, {dy.data(), x.data(), w.data(), rstd.data(), y.data(), gradient,
                             workspace.data(), rows, d, 1e-5f, type, DType::f32});
              });
  std::vector<std::int32_t> positions(rows);
  std::vector<float> inv_freq(32);
  for (std::int64_t i = 0; i < rows; ++i) positions[i] = static_cast<int>(i);
  for (int i = 0; i < 32; ++i) inv_freq[i] = std::pow(10000.0f, -static_cast<float>(i) / 32);
  for (RopePairing pairing : {RopePairing::halves, RopePairing::interleaved}) {
    Rope a;
    a.x = x.data(), a.y = y.data(), a.positions = positions.data(), a.inv_freq = inv_freq.data();
    a.tokens = rows, a.heads = 9, a.d = a.rotary = 64, a.x_stride = a.y_stride = d,
    a.pairing = pairing, a.type = type;
    bytes_row(b, std::string(pairing == RopePairing::halves ? "rope" : "rope interleaved") + suffix,
              2 * size, [&] { rope_kernels().rope(b.pool, a); });
  }
}

void cross_entropy(const Bench& b, DType type, bool gradient) {
  const std::int64_t rows = 256, vocab = 49152;
  auto logits = random_values(type, rows * vocab);
  const double size = static_cast<double>(logits.size());
  std::vector<std::int32_t> labels(rows, 17);
  std::vector<float> loss(rows);
  SoftmaxXent a;
  a.logits = logits.data(), a.labels = labels.data(), a.loss = loss.data(), a.rows = rows,
  a.vocab = a.stride = vocab;
  a.gradient = gradient, a.type = type;
  bytes_row(b,
            fmt::format("cross-entropy {}{}x{} {}", gradient ? "with gradient " : "", rows, vocab,
                        name_of(type)),
            (gradient ? 2 : 1) * size, [&] { softmax_xent_kernels().xent(b.pool, a); });
  std::vector<std::int32_t> best(rows);
  if (!gradient)
    bytes_row(b, fmt::format("argmax {}x{} {}", rows, vocab, name_of(type)), size, [&] {
      softmax_xent_kernels().argmax(b.pool, {logits.data(), rows, vocab, vocab, type}, best.data());
    });
}

void optimizer(const Bench& b) {
  const std::int64_t n = 16 << 20;
  std::vector<float> p(n, 1.0f), g(n, 1e-3f), m(n, 0.0f), v(n, 0.0f), m_max(n / 256, 0.0f),
      v_max(n / 256, 0.0f);
  std::vector<std::uint8_t> m8(n, kDynamicZeroSigned), v8(n, kDynamicZeroUnsigned);
  for (std::int64_t i = 0; i < n; ++i)
    g[i] = static_cast<float>(i * 2654435761u % 2001) * 1e-6f - 1e-3f;
  AdamWHyper h{1e-3f, 0.9f, 0.999f, 1e-8f, 0.01f, 3, nullptr};
  bytes_row(b, "adamw 16 Mi", 28.0 * n, [&] {
    adamw_kernels().step(b.pool, {p.data(), g.data(), m.data(), v.data(), n}, h);
  });
  bytes_row(b, "adamw 8-bit 16 Mi", 16.0 * n, [&] {
    adamw_kernels().step_8bit(
        b.pool, {p.data(), g.data(), m8.data(), v8.data(), m_max.data(), v_max.data(), n}, h);
  });
  const GradientSpan span{g.data(), n};
  std::vector<std::uint8_t> workspace(gradient_norm_workspace(&span, 1));
  float norm = 0;
  bytes_row(b, "gradient norm 16 Mi", 4.0 * n, [&] {
    adamw_kernels().gradient_norm(b.pool, {&span, 1, 1, &norm, nullptr, workspace.data()});
  });
  bytes_row(b, "cast f32 to bf16 16 Mi", 6.0 * n,
            [&] { array_kernels().cast(b.pool, g.data(), DType::f32, m.data(), DType::bf16, n); });
  bytes_row(b, "transpose 4096x4096 f32", 8.0 * n, [&] {
    array_kernels().transpose(b.pool, {g.data(), m.data(), 4096, 4096, 4096, 4096, 4});
  });
}

}  // namespace

int main(int argc, char** argv) {
  Pool pool(argc > 1 ? std::atoi(argv[1]) : 2);
  const Bench b{pool, probe_limits(pool), argc > 2 ? argv[2] : ""};
  fmt::print("{} threads, {}: fp32 {:.0f} GF/s, bf16 {:.0f} GF/s, read {:.1f} GB/s\n",
             pool.threads(), name_of(isa()), b.limits.fp32 / 1e9, b.limits.bf16 / 1e9,
             b.limits.read / 1e9);
  for (DType type : {DType::bf16, DType::f32}) {
    for (const Ranges& r : {packed(4, 256), packed(9, 117), packed(1, 512)})
      attention(b, r, 9, 3, 64, type, type, true);
    attention(b, packed(1, 2048), 32, 8, 128, type, type, true);
  }
  attention(b, packed(1, 8192), 32, 8, 128, DType::bf16, DType::bf16, false);
  for (DType kv : {DType::bf16, DType::f16, DType::f32}) {
    attention(b, decode(1, 512), 9, 3, 64, DType::f32, kv, false);
    attention(b, decode(1, 32768), 32, 8, 128, DType::f32, kv, false);
    attention(b, decode(8, 32768), 32, 8, 128, DType::f32, kv, false);
  }
  attention(b, decode(1, 32768), 32, 8, 128, DType::bf16, DType::bf16, false);
  attention(b, decode(8, 32768), 32, 8, 128, DType::bf16, DType::bf16, false);
  for (CacheCodes codes : {CacheCodes::none, CacheCodes::fp8, CacheCodes::q8_0}) {
    for (DType type : {DType::f32, DType::bf16}) {
      attention(b, decode(1, 131072), 9, 3, 64, type, DType::bf16, false, codes);
      if (codes != CacheCodes::none)
        attention(b, decode(1, 32768), 32, 8, 128, type, DType::bf16, false, codes);
      attention(b, decode(512, 8192), 9, 3, 64, type, DType::bf16, false, codes);
    }
  }
  for (DType type : {DType::f32, DType::bf16}) norm_and_rope(b, type);
  for (DType type : {DType::f32, DType::bf16})
    for (bool gradient : {false, true}) cross_entropy(b, type, gradient);
  optimizer(b);
}
