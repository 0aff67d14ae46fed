// The engine's training step against one written by hand (hand_step/step.h): the same model,
// adapter, batch and kernels. First both run once and their loss and gradients are compared; then
// they take turns, and the medians are printed as a line of JSON.
//
//   hand_step MODEL [--device cpu|cuda] [--rows 4] [--len 256] [--layers N] [--steps 5] [--rank 16]
//             [--compute bf16|fp32] [--threads N]
//
// --layers: the model's first ones alone. On a GPU both sides run as CUDA graphs, and the limit,
// which is not probed there, is left out.
//
// engine_seconds, hand_seconds: a micro-batch forward and backward and an optimizer step. ratio: of
// the two, and ratio_best that of the shortest ones, ratio_cpu that of the medians of processor
// time (with one thread, the figure that other work on the machine moves least). spread: of the
// medians' sides, the larger (longest - shortest) / median. Bytes are those of activations and
// workspace; weights, adapter, gradients and moments are the same on both sides. limit_fraction:
// the step's arithmetic (no recomputation; head and causal attention included) at the probed rate
// of the multiplications, divided by engine_seconds.
#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <string>
#include <vector>

#include "backend/cpu/cpu_backend.h"
#include "core/device.h"
#include "core/rng.h"
#include "hand_step/step.h"
#include "infer/roofline.h"
#include "text/dataset_pack.h"
#include "train/trainer.h"

using namespace supersonic;

namespace {

using models::Model;
using Field = std::pair<const char*, double>;

struct Arguments {
  std::string model, device = "cpu";
  std::int64_t rows = 4, len = 256, layers = 0, steps = 5, rank = 16, threads = 0;
  Compute compute = Compute::bf16;
};

Arguments parse(int argc, char** argv) {
  Arguments a;
  const std::pair<const char*, std::int64_t*> numbers[] = {
      {"--rows", &a.rows},   {"--len", &a.len},   {"--layers", &a.layers},
      {"--steps", &a.steps}, {"--rank", &a.rank}, {"--threads", &a.threads}};
  for (int i = 1; i < argc; ++i) {
    const auto named = std::find_if(std::begin(numbers), std::end(numbers),
                                    [&](const auto& n) { return !std::strcmp(n.first, argv[i]); });
    if (named != std::end(numbers) && i + 1 < argc) {
      *named->second = std::atoll(argv[++i]);
      CHECK(*named->second > 0, "{} wants a number above zero, not '{}'", named->first, argv[i]);
    } else if (!std::strcmp(argv[i], "--compute") && i + 1 < argc) {
      const std::string name = argv[++i];
      CHECK(name == "bf16" || name == "fp32", "--compute is bf16 or fp32, not '{}'", name);
      a.compute = name == "fp32" ? Compute::fp32 : Compute::bf16;
    } else if (!std::strcmp(argv[i], "--device") && i + 1 < argc) {
      a.device = argv[++i];
    } else {
      CHECK(a.model.empty() && argv[i][0] != '-', "unknown argument '{}'", argv[i]);
      a.model = argv[i];
    }
  }
  CHECK(
      !a.model.empty(),
      "usage: hand_step MODEL [--device cpu|cuda] [--rows 4] [--len 256] [--layers N] [--steps 5] "
      "[--rank 16] [--compute bf16|fp32] [--threads N]");
  return a;
}

// `rows` sequences of random tokens, each token trained to give the next.
text::Batch make_batch(const Arguments& a, std::int64_t words) {
  text::Batch b;
  const Rng rng(1, 0, rng_site("hand step tokens"), 0);
  auto token = [&](std::int64_t i) {
    return static_cast<std::int32_t>(rng.at(i) % static_cast<std::uint32_t>(words));
  };
  for (std::int64_t i = 0; i < a.rows * a.len; ++i) {
    b.ids.push_back(token(i));
    b.labels.push_back(token(i + 1));
    b.positions.push_back(static_cast<std::int32_t>(i % a.len));
    b.lo.push_back(static_cast<std::int32_t>(i / a.len * a.len));
  }
  b.trained = b.tokens = a.rows * a.len;
  return b;
}

// B starts at zero, where A's gradient would be zero too.
void fill_b(nn::LoraSet& lora) {
  Rng rng(2, 0, rng_site("hand step B"), 0);
  for (const nn::LoraSlot& s : lora.slots)
    for (std::int64_t i = 0; i < s.out * s.rank; ++i)
      lora.values->as<float>()[s.b + i] = static_cast<float>(0.04 * rng.uniform() - 0.02);
}

double norm_of(std::span<const float> a) {
  double squares = 0;
  for (float x : a) squares += static_cast<double>(x) * x;
  return std::sqrt(squares);
}

// |a - b| by |b|, or by `least` where that is more.
double distance(std::span<const float> a, std::span<const float> b, double least = 1e-150) {
  double apart = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double d = static_cast<double>(a[i]) - b[i];
    apart += d * d;
  }
  return std::sqrt(apart) / std::max(norm_of(b), least);
}

// In fp32 the largest relative distance of any matrix's gradient; by the matrices' mean norm where
// its own is less, since of random weights some cancel to nothing. In bf16 that of all gradients
// together: the steps round some intermediate results at other places, and one matrix whose
// gradient nearly cancels may then be several per cent apart, as far as either is from fp32.
double gradients_distance(const nn::LoraSet& lora, const StorageRef& of_hand, Backend& backend,
                          Compute compute) {
  const StorageRef home = Storage::make(of_hand->spec, "hand gradients"),
                   engines = Storage::make(of_hand->spec, "gradients");
  copy_contents(*home, *of_hand, backend);
  copy_contents(*engines, *lora.gradients, backend);
  const auto hand = home->values<const float>(), engine = engines->values<const float>();
  if (compute == Compute::bf16) return distance(hand, engine);
  const double mean = norm_of(engine) / std::sqrt(2.0 * static_cast<double>(lora.slots.size()));
  double worst = 0;
  for (const nn::LoraSlot& s : lora.slots)
    for (const auto& [at, n] : {std::pair{s.a, s.rank * s.in}, {s.b, s.out * s.rank}})
      worst = std::max(worst, distance(hand.subspan(at, n), engine.subspan(at, n), mean));
  return worst;
}

struct Sample {
  double seconds, cpu;  // on the clock, of all threads
};

template <class F>
Sample measure(F&& f) {
  const auto start = std::chrono::steady_clock::now();
  const std::clock_t cpu = std::clock();
  f();
  return {std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(),
          static_cast<double>(std::clock() - cpu) / CLOCKS_PER_SEC};
}

struct Times {
  double median, shortest, spread, cpu;  // cpu: the median
  explicit Times(const std::vector<Sample>& samples) {
    std::vector<double> seconds, of_cpu;
    for (const Sample& s : samples) seconds.push_back(s.seconds), of_cpu.push_back(s.cpu);
    median = middle(seconds);
    shortest = seconds.front();
    spread = (seconds.back() - seconds.front()) / median;
    cpu = middle(of_cpu);
  }
  static double middle(std::vector<double>& t) {  // sorts t
    std::sort(t.begin(), t.end());
    return (t[t.size() / 2] + t[(t.size() - 1) / 2]) / 2;
  }
};

// Operations of a step: products with the frozen weights twice, with the adapter's matrices three
// times (their gradients too), attention once forward and two and a half times backward.
double shortest_step(const Model& m, const nn::LoraSet& lora, const Arguments& a,
                     const cpu::Limits& limits) {
  const infer::ForwardWork row = infer::forward_work(m, a.len, a.len);
  const double work =
      2 * row.products + 3.5 * row.attention + 6.0 * static_cast<double>(lora.size * a.len);
  return static_cast<double>(a.rows) * work /
         (a.compute == Compute::bf16 ? limits.bf16 : limits.fp32);
}

// The CPU's rates; zeros for a GPU, whose limits are not probed here.
cpu::Limits probed(Backend& backend) {
  if (&backend != &cpu_backend()) return {};
  return cpu::probe_limits(cpu::pool_of(backend.lane(LaneKind::compute)));
}

void say(const Arguments& a, const Model& shape, const std::vector<Field>& fields) {
  std::string line = fmt::format(
      "{{\"work\": \"lora_step\", \"device\": \"{}\", \"layers\": {}, \"rows\": {}, \"len\": {}, "
      "\"compute\": \"{}\"",
      a.device, shape.layers.size(), a.rows, a.len, name_of(a.compute));
  for (const auto& [name, value] : fields) line += fmt::format(", \"{}\": {:.10g}", name, value);
  fmt::print("{}}}\n", line);
}

int compare(const Arguments& a) {
  if (a.threads) cpu::set_threads(static_cast<int>(a.threads));
  Backend& backend = device_backend(a.device);
  Model model = models::load_model(a.model);
  if (a.layers && a.layers < std::ssize(model.layers))
    model.layers.resize(static_cast<std::size_t>(a.layers));
  train::LoraOptions options;
  options.rank = a.rank;
  nn::LoraSet lora = train::make_lora(model, options, true);
  fill_b(lora);
  lora.gradients = resident(lora.gradients, backend);  // so that both sides' can be read
  models::make_resident(model, backend);
  const std::int64_t tokens = a.rows * a.len;
  Executor executor(backend);
  const text::Batch batch = make_batch(a, model.config.vocab_size);
  std::vector<std::int32_t> hi(tokens);
  for (std::int64_t i = 0; i < tokens; ++i) hi[i] = static_cast<std::int32_t>(i);
  const bench::Feeds feeds{batch.ids.data(), batch.positions.data(), batch.lo.data(), hi.data(),
                           batch.labels.data()};
  bench::HandStep hand(model, lora, backend, tokens, a.compute);
  train::Trainer engine(model, lora, executor, tokens, a.compute, {});

  const float scale = 1.0f / static_cast<float>(tokens);
  const double engine_loss = engine.accumulate(batch, scale),
               hand_loss = hand.accumulate(feeds, scale);
  const double tolerance = a.compute == Compute::bf16 ? 1.5e-2 : 1e-4;
  const double loss_apart = std::abs(hand_loss / engine_loss - 1),
               gradients_apart = gradients_distance(lora, hand.gradients(), backend, a.compute);
  fmt::print(stderr, "loss {:.6f}, by hand {:.6f}; gradients {:.2e} apart\n", engine_loss,
             hand_loss, gradients_apart);
  CHECK(loss_apart <= tolerance && gradients_apart <= tolerance,
        "the steps disagree: relative differences of loss {:.2e}, gradients {:.2e}", loss_apart,
        gradients_apart);
  const double engine_norm = engine.step(1, 1e-4f), hand_norm = hand.step(1, 1e-4f);
  CHECK(std::abs(hand_norm / engine_norm - 1) <= tolerance,
        "the gradients' norms disagree: {} and {}", engine_norm, hand_norm);

  std::vector<Sample> engine_times, hand_times;
  cpu::Limits limits = probed(backend);
  for (std::int64_t i = -1; i < a.steps; ++i) {  // -1: a GPU's second run is recorded, not counted
    const Sample of_engine = measure([&] {
      engine.accumulate(batch, scale);
      engine.step(i + 3, 1e-4f);
    });
    const Sample of_hand = measure([&] {
      hand.accumulate(feeds, scale);
      hand.step(i + 3, 1e-4f);
    });
    if (i < 0) continue;
    engine_times.push_back(of_engine);
    hand_times.push_back(of_hand);
  }
  const cpu::Limits after = probed(backend);
  limits.bf16 = std::max(limits.bf16, after.bf16);
  limits.fp32 = std::max(limits.fp32, after.fp32);
  const Times e(engine_times), h(hand_times);
  const double bytes = static_cast<double>(engine.memory().arena),
               by_hand = static_cast<double>(hand.arena_bytes());
  std::vector<Field> fields{{"engine_seconds", e.median},
                            {"hand_seconds", h.median},
                            {"ratio", e.median / h.median},
                            {"ratio_best", e.shortest / h.shortest},
                            {"ratio_cpu", e.cpu / h.cpu},
                            {"spread", std::max(e.spread, h.spread)},
                            {"engine_bytes", bytes},
                            {"hand_bytes", by_hand},
                            {"memory_ratio", bytes / by_hand},
                            {"tokens_per_second", static_cast<double>(tokens) / e.median},
                            {"gradients_apart", gradients_apart}};
  if (limits.fp32 > 0) {
    const double limit = shortest_step(model, lora, a, limits);
    fields.push_back({"limit_fraction", limit / e.median});
    fields.push_back({"hand_limit_fraction", limit / h.median});
  }
  say(a, model, fields);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return compare(parse(argc, argv));
  } catch (const std::exception& e) {
    fmt::print(stderr, "hand_step: {}\n", e.what());
    return 1;
  }
}
