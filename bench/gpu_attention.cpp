// The GPU's attention, causal, bf16, of sequences that do not see each other, forward and backward:
// one JSON line a shape, for scripts/bench gpu attention.
//   gpu_attention [--device cuda] ROWSxLENGTHxHEADSxKVHEADSxDIM …     e.g. 4x2048x32x8x128
//   {"shape": "4x2048x32x8x128", "forward_seconds": s, "backward_seconds": s}
// Seconds are those of the shortest of five batches of launches; the backward pass has the forward
// pass's own results for input.
#include <algorithm>
#include <charconv>
#include <cmath>

#include "gpu_bench.h"
#include "ops/attention.h"

namespace supersonic {
namespace {

struct AttentionShape {
  std::int64_t rows, length, heads, kv_heads, dim;
};

AttentionShape parse(std::string_view text) {
  AttentionShape s{};
  std::int64_t* const fields[] = {&s.rows, &s.length, &s.heads, &s.kv_heads, &s.dim};
  const char* at = text.data();
  const char* const end = at + text.size();
  for (auto* field : fields) {
    const auto [next, error] = std::from_chars(at, end, *field);
    const bool last = field == &s.dim;
    if (error != std::errc{} || *field < 1 || (last ? next != end : next == end || *next != 'x'))
      fail(ErrorKind::usage, "{}: not ROWSxLENGTHxHEADSxKVHEADSxDIM, such as 4x2048x32x8x128",
           text);
    at = last ? next : next + 1;
  }
  return s;
}

double shortest_seconds(const Bench& b, const std::function<void()>& launch) {
  constexpr double kBatch = 0.03;  // seconds, about
  constexpr int kBatches = 5;
  const auto batch = [&](int n) {
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < n; ++i) launch();
    b.gpu.sync();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() / n;
  };
  batch(2);
  const int launches = std::clamp(static_cast<int>(kBatch / batch(2)), 1, 1000);
  double shortest = batch(launches);
  for (int i = 1; i < kBatches; ++i) shortest = std::min(shortest, batch(launches));
  return shortest;
}

void measure(const Bench& b, const AttentionShape& s) {
  const std::int64_t tokens = s.rows * s.length;
  const Spec q{Shape{tokens, s.heads, s.dim}, DType::bf16, nullptr};
  const Spec kv{Shape{tokens, s.kv_heads, s.dim}, DType::bf16, nullptr};
  const Spec row{Shape{tokens}, DType::i32, nullptr};
  const Bench::Ints first_key = [&](std::size_t, std::int64_t i) { return i - i % s.length; };
  const Bench::Ints own_key = [](std::size_t, std::int64_t i) { return i; };
  const float scale = 1 / std::sqrt(static_cast<float>(s.dim));
  std::vector<StorageRef> in = {b.random(q), b.random(kv), b.random(kv), b.random(row, first_key),
                                b.random(row, own_key)};
  const Bench::Launch forward =
      b.prepare(op<Attention>(), Attrs::of(Attention{scale}), in, Compute::bf16);
  const double forward_seconds = shortest_seconds(b, forward.run);
  in.insert(in.end(), {forward.results[0], forward.results[1], b.random(q)});
  const Bench::Launch backward =
      b.prepare(op<AttentionGrad>(), Attrs::of(AttentionGrad{scale}), in, Compute::bf16);
  fmt::print(
      "{{\"shape\": \"{}x{}x{}x{}x{}\", \"forward_seconds\": {}, \"backward_seconds\": {}}}\n",
      s.rows, s.length, s.heads, s.kv_heads, s.dim, forward_seconds,
      shortest_seconds(b, backward.run));
  std::fflush(stdout);
}

int run(int argc, char** argv) {
  std::string device = "cuda";
  std::vector<AttentionShape> shapes;
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    if (word == "--device" && i + 1 < argc)
      device = argv[++i];
    else
      shapes.push_back(parse(word));
  }
  if (shapes.empty()) fail(ErrorKind::usage, "no shape was given, such as 4x2048x32x8x128");
  Bench b{device_backend(device)};
  b.signs = true;
  for (const AttentionShape& s : shapes) measure(b, s);
  return 0;
}

}  // namespace
}  // namespace supersonic

int main(int argc, char** argv) {
  try {
    return supersonic::run(argc, argv);
  } catch (const std::exception& e) {
    fmt::print(stderr, "gpu_attention: {}\n", e.what());
    return 1;
  }
}
