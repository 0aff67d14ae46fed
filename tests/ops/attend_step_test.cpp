// AttendStep against the operations that it stands for, in fp64 on the CPU: one token after another
// on the same caches.
#include <gtest/gtest.h>

#include "op_harness.h"
#include "ops/attend_step.h"
#include "ops/attention.h"
#include "ops/kv_append.h"

namespace supersonic::testing {
namespace {

struct Shapes {
  std::int64_t heads, groups, d, pairs, capacity, context, at, lo;
  DType type, cache;
  bool interleaved;
};
constexpr float kScale = 0.2f, kMagnitude = 1.25f;

// Numbers as the types under test hold them, in those types or in fp64.
StorageRef data(const Shape& shape, DType type, std::uint64_t seed, bool wide) {
  StorageRef x = Storage::make({shape, type, nullptr});
  for (std::int64_t i = 0; i < x->spec.numel(); ++i) put(*x, i, gaussian(seed, i));
  return wide ? widened(x) : placed({x})[0];
}
StorageRef numbers(std::int32_t value, bool wide) {
  StorageRef x = Storage::make({Shape{1}, DType::i32, nullptr});
  x->as<std::int32_t>()[0] = value;
  return wide ? x : placed({x})[0];
}

// Two tokens; what each gives, and the caches after both.
std::vector<std::vector<double>> two_tokens(const Shapes& s, bool wide) {
  const Shape cache{s.capacity, s.groups, s.d}, kv{1, s.groups, s.d};
  const StorageRef k_cache = data(cache, s.cache, 1, wide), v_cache = data(cache, s.cache, 2, wide);
  StorageRef inv_freq = Storage::make({Shape{s.pairs}, DType::f32, nullptr});
  for (std::int64_t i = 0; i < s.pairs; ++i)
    inv_freq->as<float>()[i] = 1.0f / static_cast<float>(1 + i);
  inv_freq = wide ? widened(inv_freq) : placed({inv_freq})[0];
  const StorageRef lo = numbers(static_cast<std::int32_t>(s.lo), wide);
  std::vector<StorageRef> q, k, v, at;
  for (std::uint64_t t = 0; t < 2; ++t) {
    q.push_back(data({1, s.heads, s.d}, s.type, 10 + t, wide));
    k.push_back(data(kv, s.type, 20 + t, wide));
    v.push_back(data(kv, s.type, 30 + t, wide));
    at.push_back(numbers(static_cast<std::int32_t>(s.at + static_cast<std::int64_t>(t)), wide));
  }
  auto leaf = [](const StorageRef& x) { return from_storage(x); };
  auto record_tokens = [&] {
    Tensors out;
    const Rope turn{s.interleaved, 0, kMagnitude};
    for (int t = 0; t < 2; ++t) {
      const Tensor where = leaf(at[t]), freq = leaf(inv_freq);
      if (!wide) {
        out.push_back(record(AttendStep{turn, kScale, s.context},
                             {leaf(k_cache), leaf(v_cache), leaf(q[t]), leaf(k[t]), leaf(v[t]),
                              where, freq, where, leaf(lo), where},
                             Where::current())[0]);
        continue;
      }
      auto turned = [&](const StorageRef& x) {
        return rope(leaf(x), where, freq, s.interleaved, kMagnitude);
      };
      const Tensor query = turned(q[t]);
      kv_append(leaf(k_cache), turned(k[t]), where);
      kv_append(leaf(v_cache), leaf(v[t]), where);
      out.push_back(attention(query, slice(leaf(k_cache), 0, 0, s.context),
                              slice(leaf(v_cache), 0, 0, s.context), leaf(lo), where, kScale));
    }
    out.push_back(add(leaf(k_cache), leaf(k_cache), Where::current()));
    out.push_back(add(leaf(v_cache), leaf(v_cache), Where::current()));
    return out;
  };
  return wide ? run(record_tokens, {}, cpu_backend()) : run(record_tokens);
}

// 2^-8 of a rounding to bf16 of queries, keys and results, by which scores of some units move: 1.5
// % covers them.
TEST(AttendStep, EqualsRopeAppendAndAttentionInFp64) {
  for (const Shapes& s :
       {Shapes{8, 2, 128, 64, 400, 300, 255, 0, DType::bf16, DType::bf16, false},
        Shapes{6, 2, 64, 32, 40, 40, 5, 2, DType::bf16, DType::bf16, true},
        Shapes{4, 4, 80, 40, 300, 256, 130, 70, DType::f32, DType::f16, false},
        Shapes{14, 2, 64, 16, 1100, 1024, 1000, 500, DType::bf16, DType::bf16, false},
        Shapes{2, 1, 128, 64, 30, 20, 0, 0, DType::bf16, DType::bf16, false},
        Shapes{32, 8, 128, 64, 4200, 4096, 4090, 0, DType::bf16, DType::bf16, false},
        Shapes{8, 2, 256, 128, 100, 80, 33, 0, DType::bf16, DType::bf16, false}}) {
    const auto got = two_tokens(s, false), want = two_tokens(s, true);
    ASSERT_EQ(got.size(), want.size());
    for (std::size_t o = 0; o < got.size(); ++o)
      EXPECT_LE(relative_error(got[o], want[o]), s.type == DType::f32 ? 2e-3 : 1.5e-2)
          << "heads " << s.heads << " of " << s.d << ", context " << s.context << ", output " << o;
  }
}

}  // namespace
}  // namespace supersonic::testing
