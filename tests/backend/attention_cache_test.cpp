// Attention on coded KV caches (FP8, Q8_0), for every instruction set: against fp64 loops over the
// decoded numbers; every code as a value, exactly; strides, windows, empty ranges, poisoned
// workspaces.
#include "backend/cpu/kernels/attention.h"
#include "core/error.h"
#include "formats/format.h"
#include "kernel_test_util.h"

namespace supersonic::cpu::test {
namespace {

// Rows of heads inside wider ones: one head more, which is poison.
struct Cache {
  const Format& f;
  std::int64_t rows, heads, d, stride;
  std::vector<std::uint8_t> bytes;
  std::vector<float> numbers;  // (rows, stride)
  Cache(const char* name, std::int64_t rows, std::int64_t heads, std::int64_t d, std::mt19937& rng)
      : f(*find_format(name)), rows(rows), heads(heads), d(d), stride((heads + 1) * d) {
    std::normal_distribution<float> normal(0, 1);
    std::vector<float> x(static_cast<std::size_t>(rows * stride));
    for (float& v : x) v = normal(rng);
    bytes.resize(total_bytes(f, rows, stride));
    void* planes[kMaxPlanes] = {bytes.data()};
    f.encode(x.data(), rows, stride, planes);
    numbers.resize(x.size());
    f.decode(Planes{{bytes.data()}}, 0, rows * stride, numbers.data());
    const std::size_t head = total_bytes(f, 1, d), row = total_bytes(f, 1, stride);
    for (std::int64_t r = 0; r < rows; ++r)
      std::memset(bytes.data() + static_cast<std::size_t>(r + 1) * row - head, 0xff, head);
  }
  double at(std::int64_t row, std::int64_t head, std::int64_t e) const {
    return numbers[static_cast<std::size_t>(row * stride + head * d + e)];
  }
};

struct Problem {
  std::int64_t queries, keys, heads, kv_heads, d;
  std::vector<std::int32_t> lo, hi;
  float scale = 0.3f, cap = 0;
};

// Rows of o: fp64 from the definition.
std::vector<double> reference(const Problem& p, const Buffer& q, const Cache& k, const Cache& v) {
  std::vector<double> o(static_cast<std::size_t>(p.queries * p.heads * p.d));
  for (std::int64_t i = 0; i < p.queries; ++i)
    for (std::int64_t h = 0; h < p.heads; ++h) {
      const std::int64_t g = h / (p.heads / p.kv_heads), at = (i * p.heads + h) * p.d;
      std::vector<double> s;
      double top = -INFINITY, sum = 0;
      for (std::int64_t j = p.lo[i]; j <= p.hi[i]; ++j) {
        double dot = 0;
        for (std::int64_t e = 0; e < p.d; ++e) dot += q[at + e] * k.at(j, g, e);
        dot *= p.scale;
        if (p.cap > 0) dot = p.cap * std::tanh(dot / p.cap);
        s.push_back(dot), top = std::fmax(top, dot);
      }
      for (double& x : s) sum += x = std::exp(x - top);
      for (std::size_t j = 0; j < s.size(); ++j)
        for (std::int64_t e = 0; e < p.d; ++e)
          o[at + e] += s[j] / sum * v.at(p.lo[i] + static_cast<std::int64_t>(j), g, e);
    }
  return o;
}

std::vector<double> compute(Isa level, const Problem& p, DType type, const Buffer& q,
                            const Cache& k, const Cache& v, int threads, bool rounded = false) {
  Pool pool(threads);
  Buffer o(type, p.queries * p.heads * p.d);
  AttentionForward f;
  f.shape = {p.queries, p.keys, p.heads, p.kv_heads, p.d, p.scale, p.lo.data(), p.hi.data(), p.cap};
  f.q = q.data(), f.k = k.bytes.data(), f.v = v.bytes.data(), f.o = o.data();
  f.q_stride = f.o_stride = p.heads * p.d, f.k_stride = k.stride, f.v_stride = v.stride;
  f.type = type, f.rounded = rounded;
  f.kv_codes = k.f.name == "fp8" ? CacheCodes::fp8 : CacheCodes::q8_0;
  std::vector<unsigned char> workspace(attention_forward_workspace(f.shape, threads) + 1, 0xff);
  f.workspace = workspace.data();
  attention_kernels(level).forward(pool, f);
  EXPECT_EQ(workspace.back(), 0xff);
  EXPECT_TRUE(o.guard_intact());
  std::vector<double> out;
  for (std::int64_t i = 0; i < o.size(); ++i) out.push_back(o[i]);
  return out;
}

double relative_difference(const std::vector<double>& got, const std::vector<double>& want) {
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < want.size(); ++i)
    difference += (got[i] - want[i]) * (got[i] - want[i]), norm += want[i] * want[i];
  return std::sqrt(difference / norm);
}

Problem causal(std::int64_t queries, std::int64_t keys, std::int64_t heads, std::int64_t kv_heads,
               std::int64_t d) {
  Problem p{queries, keys, heads, kv_heads, d, {}, {}};
  for (std::int64_t i = 0; i < queries; ++i)
    p.lo.push_back(0), p.hi.push_back(static_cast<int>(keys - queries + i));
  return p;
}

std::vector<Problem> problems() {
  Problem window = causal(70, 150, 4, 2, 32), capped = causal(1, 700, 6, 2, 64),
          holes = causal(50, 50, 2, 1, 96);
  for (int i = 0; i < 70; ++i) window.lo[i] = 60 + i;
  for (int i = 0; i < 50; i += 3) holes.lo[i] = 5, holes.hi[i] = 4;
  capped.cap = 1.5f;
  return {causal(1, 1, 1, 1, 32),
          causal(1, 1500, 9, 3, 64),
          causal(2, 77, 3, 1, 128),
          causal(6, 40, 1, 1, 256),
          causal(70, 131, 9, 3, 64),
          causal(20, 20, 2, 1, 256),
          window,
          capped,
          holes};
}

// bf16: probabilities and outputs, and in tiles the decoded numbers, are rounded to 8 bits. fp32:
// sums of up to 1500 terms.
double limit(DType type) { return type == DType::bf16 ? 6e-3 : 5e-6; }

TEST(AttentionCache, EqualsTheDefinitionOnTheDecodedNumbers) {
  std::mt19937 rng(17);
  for (const char* format : {"fp8", "q8_0"})
    for (const Problem& p : problems())
      for (DType type : {DType::f32, DType::bf16}) {
        const Buffer q(type, p.queries * p.heads * p.d, rng);
        const Cache k(format, p.keys, p.kv_heads, p.d, rng),
            v(format, p.keys, p.kv_heads, p.d, rng);
        const auto want = reference(p, q, k, v);
        for (Isa level : levels())
          for (int threads : {1, 3})
            EXPECT_LT(relative_difference(compute(level, p, type, q, k, v, threads), want),
                      limit(type))
                << format << " " << name_of(level) << " T " << p.queries << " S " << p.keys << " d "
                << p.d;
      }
}

TEST(AttentionCache, RoundedProductsStayWithinBf16) {
  std::mt19937 rng(20);
  for (const char* format : {"fp8", "q8_0"})
    for (const Problem& p : problems()) {
      const Buffer q(DType::f32, p.queries * p.heads * p.d, rng);
      const Cache k(format, p.keys, p.kv_heads, p.d, rng), v(format, p.keys, p.kv_heads, p.d, rng);
      const auto want = reference(p, q, k, v);
      for (Isa level : levels()) {
        const auto got = compute(level, p, DType::f32, q, k, v, 2, true);
        EXPECT_LT(relative_difference(got, want), limit(DType::bf16))
            << format << " " << name_of(level) << " T " << p.queries;
      }
    }
}

// A query that sees one key gives that key's values as they are.
TEST(AttentionCache, EveryCodeIsReadExactly) {
  std::mt19937 rng(18);
  for (const char* format : {"fp8", "q8_0"})
    for (std::int64_t queries : {1, 40}) {  // rows as they lie, and tiles
      const Problem p{queries,
                      1,
                      1,
                      1,
                      256,
                      std::vector<std::int32_t>(queries, 0),
                      std::vector<std::int32_t>(queries, 0)};
      const Cache k(format, 1, 1, 256, rng);
      Cache v(format, 1, 1, 256, rng);
      const std::size_t block = v.f.block_bytes, codes = v.f.block;
      for (std::size_t i = 0; i < 256; ++i)
        v.bytes[i / codes * block + (block - codes) + i % codes] = static_cast<std::uint8_t>(i);
      std::vector<float> want(256);
      v.f.decode(Planes{{v.bytes.data()}}, 0, 256, want.data());
      Buffer q(DType::f32, queries * 256);
      for (std::int64_t i = 0; i < q.size(); ++i)
        q.set(i, 0);  // a score of 0: its weight is exactly 1
      for (Isa level : levels()) {
        const auto got = compute(level, p, DType::f32, q, k, v, 1);
        for (std::size_t i = 0; i < got.size(); ++i) {
          const float w = want[i % 256];
          ASSERT_TRUE(got[i] == w || (std::isnan(got[i]) && std::isnan(w)))
              << format << " " << name_of(level) << " code " << i << ": " << got[i] << " for " << w;
        }
      }
    }
}

TEST(AttentionCache, BlocksThatCrossAHeadAreRefused) {
  std::mt19937 rng(19);
  const Problem p = causal(1, 4, 2, 2, 16);
  const Cache k("q8_0", 4, 1, 32, rng);
  EXPECT_THROW(compute(isa(), p, DType::f32, Buffer(DType::f32, 32, rng), k, k, 1), Error);
}

}  // namespace
}  // namespace supersonic::cpu::test
