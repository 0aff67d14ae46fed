// KvStep against the operations that it stands for: turned queries and both caches, on the device under test.
#include <gtest/gtest.h>

#include "op_harness.h"
#include "ops/dequantize.h"
#include "ops/kv_append.h"
#include "ops/kv_step.h"

namespace supersonic::testing {
namespace {

struct Shapes {
  std::int64_t tokens, heads, groups, d, pairs;
  DType type, cache;
  bool interleaved;
  const char* format = nullptr;  // of the caches
};

std::vector<std::vector<double>> step(const Shapes& s, bool whole) {
  auto data = [&](Shape shape, DType type, std::uint64_t seed) {
    StorageRef x = Storage::make({shape, type, nullptr});
    for (std::int64_t i = 0; i < x->spec.numel(); ++i) put(*x, i, gaussian(seed, i));
    return placed({x})[0];
  };
  auto ints = [&](std::vector<std::int32_t> v) {
    StorageRef x = Storage::make({Shape{static_cast<std::int64_t>(v.size())}, DType::i32, nullptr});
    std::ranges::copy(v, x->as<std::int32_t>());
    return placed({x})[0];
  };
  const Shape kv{s.tokens, s.groups, s.d}, cache{40, s.groups, s.d};
  auto cache_of = [&](std::uint64_t seed) {
    if (!s.format) return data(cache, s.cache, seed);
    StorageRef x = Storage::make({cache, DType::quant, find_format(s.format)});
    fill_quantized(*x, seed);
    return placed({x})[0];
  };
  const StorageRef k_cache = cache_of(1), v_cache = cache_of(2), q = data({s.tokens, s.heads, s.d}, s.type, 3),
                   k = data(kv, s.type, 4), v = data(kv, s.type, 5), at = ints({7});
  std::vector<std::int32_t> positions;
  for (std::int64_t t = 0; t < s.tokens; ++t) positions.push_back(static_cast<std::int32_t>(7 + t));
  const StorageRef where = ints(positions);
  StorageRef inv_freq = Storage::make({Shape{s.pairs}, DType::f32, nullptr});
  for (std::int64_t i = 0; i < s.pairs; ++i) inv_freq->as<float>()[i] = 1.0f / static_cast<float>(1 + i);
  inv_freq = placed({inv_freq})[0];
  return run([&] {
    Tensor y;
    const Rope rope_of{s.interleaved, 0, 1.25f};
    if (whole) {
      y = record(KvStep{rope_of}, {from_storage(k_cache), from_storage(v_cache), from_storage(q), from_storage(k), from_storage(v),
                                   from_storage(where), from_storage(inv_freq), from_storage(at)}, Where::current())[0];
    } else {
      auto turned = [&](const StorageRef& x) {
        return rope(from_storage(x), from_storage(where), from_storage(inv_freq), s.interleaved, 1.25f);
      };
      y = turned(q);
      kv_append(from_storage(k_cache), turned(k), from_storage(at));
      kv_append(from_storage(v_cache), from_storage(v), from_storage(at));
    }
    auto read = [&](const StorageRef& c) {
      return s.format ? dequantize(from_storage(c), DType::f32) : add(from_storage(c), from_storage(c), Where::current());
    };
    return Tensors{y, read(k_cache), read(v_cache)};
  });
}

TEST(KvStep, EqualsRopeAndTwoAppends) {
  for (const Shapes& s : {Shapes{1, 6, 2, 64, 32, DType::bf16, DType::bf16, false}, Shapes{3, 4, 4, 128, 64, DType::bf16, DType::f16, true},
                          Shapes{5, 2, 1, 32, 12, DType::f32, DType::f32, false}, Shapes{20, 2, 1, 32, 16, DType::bf16, DType::bf16, true},
                          Shapes{1, 8, 2, 128, 64, DType::bf16, DType::quant, false, "q8_0"}, Shapes{3, 4, 2, 96, 32, DType::bf16, DType::quant, true, "q8_0"},
                          Shapes{2, 2, 1, 64, 32, DType::f32, DType::quant, false, "q8_0"}, Shapes{1, 8, 2, 128, 64, DType::bf16, DType::quant, false, "fp8"},
                          Shapes{4, 2, 1, 40, 20, DType::f32, DType::quant, true, "fp8"}}) {

    const auto got = step(s, true), want = step(s, false);
    ASSERT_EQ(got.size(), want.size());
    for (std::size_t o = 0; o < got.size(); ++o) EXPECT_LE(relative_error(got[o], want[o]), s.type == DType::f32 && !s.format ? 1e-6 : 4e-3) << "output " << o;
  }
}

}  // namespace
}  // namespace supersonic::testing
