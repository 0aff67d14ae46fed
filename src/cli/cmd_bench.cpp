// supersonic bench MODEL: tokens per second of prefill and decode on warmed programs, and how near
// that is to what this machine can do.
#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "cli/command.h"
#include "cli/console.h"
#include "cli/json_writer.h"
#include "cli/model_options.h"
#include "core/device.h"
#include "core/interrupt.h"
#include "core/machine.h"
#include "infer/roofline.h"
#include "infer/sampler.h"
#include "infer/session.h"
#include "text/dataset_pack.h"
#include "train/trainer.h"

namespace supersonic::cli {
namespace {

struct Row {
  std::string test;
  double rate = 0, deviation = 0, limit_fraction = 0;  // the last is 0 where the limit is unknown
  std::vector<double> seconds = {};                    // of each run that counted
  // What the limit is made of: the operations of a run, or the bytes that a decoded token reads.
  double operations = 0, bytes = 0;
  // In bytes: what was planned; the process's peak, or the GPU's memory.
  std::uint64_t planned = 0, taken = 0;
  std::string level = {};  // what a training step's plan keeps and recomputes
};

struct Runs {
  int warm, counted;
};

template <class Work>
double seconds_of(Work work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Runs `work` to warm it, then as often as counted; units: tokens of one run; shortest: seconds
// that the limits allow, 0 where they are unknown. Two runs warm a work of seconds: what a third
// would save is little beside it.
template <class Work>
Row measure(std::string test, std::int64_t units, Runs runs, double shortest, Work work) {
  constexpr double kLong = 4;
  double warming = 0;
  for (int i = 0; i < runs.warm && (i < 2 || warming < kLong); ++i) warming += seconds_of(work);
  Row row{.test = std::move(test)};
  double sum = 0, squares = 0;
  for (int i = 0; i < runs.counted; ++i) {
    check_interrupt();
    row.seconds.push_back(seconds_of(work));
    const double rate = static_cast<double>(units) / row.seconds.back();
    sum += rate, squares += rate * rate;
  }
  row.rate = sum / runs.counted;
  if (runs.counted > 1)
    row.deviation = std::sqrt(std::max(0.0, (squares - sum * row.rate) / (runs.counted - 1)));
  row.limit_fraction = shortest * row.rate / static_cast<double>(units);
  return row;
}

struct Bench : ModelOptions {
  std::int64_t prompt = 512, generate = 128, depth = 0;
  std::int64_t batch = 4, seq_len = 256, rank = 16;
  int repeats = 5;
  std::string kv_type = "auto", optim = "adamw", method = "lora";
  std::optional<Bytes> memory;
  bool train = false, json = false;

  static constexpr About about{
      .summary = "Measure the speed of prefill and decode, or of training steps",
      .usage = "MODEL [--train]",
      .details =
          "pp512: a prompt of 512 tokens, in tokens a second; tg128: 128 tokens generated one by "
          "one after an empty context, each the most likely. Programs are "
          "warm, loading is not counted. lora4x256, full4x256 (--train): steps of 4 rows of 256 tokens. "
          "limit: part of what the machine's probed arithmetic (prefill, "
          "training) or memory (decode) allows.",
      .examples =
          "supersonic bench model.gguf\nsupersonic bench model.gguf -p 2048 -n 64 -r 3 --compute "
          "int8 --json",
      .group = CommandGroup::measure};

  void options(Options& o) {
    declare_model(o);
    o.add("prompt", prompt, "Tokens of the prompt; 0: no such test").letter('p').range(0, 1 << 20);
    o.add("generate", generate, "Tokens to generate; 0: no such test")
        .letter('n')
        .range(0, 1 << 20);
    o.add("depth", depth, "Tokens that the context holds already when a test begins")
        .range(0, 1 << 20);
    o.add("repeats", repeats, "Runs of each test that count, after some that warm up")
        .letter('r')
        .range(1, 1000);
    declare_adapter(o);
    ComputeOptions::options(o);
    declare_device(o);
    declare_kv_type(o, kv_type);
    o.group("Training");
    o.add("train", train, "Measure training steps instead: forward, backward, AdamW");
    o.add("method", method, "lora: an adapter beside the frozen model; full: all weights of a 16- or 32-bit model").choices({"lora", "full"});
    o.add("batch", batch, "Rows of a step").range(1, 1 << 16);
    o.add("seq-len", seq_len, "Tokens of a row").range(2, 1 << 20);
    o.add("rank", rank, "Rank of the adapter, on all linear layers").range(1, 4096);
    o.add("optim", optim, "Optimizer: its moments in 32 or in 8 bits")
        .choices({"adamw", "adamw-8bit"});
    o.add("memory", memory,
          "Memory that training may take in all (8GiB); what does not fit is recomputed; auto: no "
          "limit");
    o.group("Output");
    declare_json(o, json);
  }

  int run(Context&) {
    const std::uint64_t program = peak_resident_bytes();
    LoadedModel loaded = load();
    train ? measure_training(loaded, program) : measure_inference(loaded);
    return 0;
  }

  void measure_inference(LoadedModel& loaded) const {
    if (prompt == 0 && generate == 0)
      fail(ErrorKind::usage, "bench: nothing to measure: -p and -n are both 0");
    const TakenMemory taken(backend());
    infer::SessionOptions options;
    options.compute = resolve(loaded.model);
    options.context = depth + std::max(prompt, generate);
    options.kv_type = kv_type_of(kv_type, options.compute);
    options.lora = loaded.lora();
    const double bytes = infer::decode_bytes(
        loaded.model, static_cast<double>(depth) + static_cast<double>(generate) / 2,
        options.kv_type);
    Executor executor = make_executor(loaded.model);
    const auto [limits, read] = probe(bytes);
    const double known = limits_known() ? 1 : 0;
    infer::Session session(loaded.model, executor, options);
    const auto ids =
        some_ids(std::max<std::int64_t>({prompt, depth, 1}), loaded.model.config.vocab_size);
    if (depth) session.feed(std::span(ids).first(static_cast<std::size_t>(depth)));
    const infer::Sampler greedy(static_cast<int>(loaded.model.head->spec.shape[0]),
                                {.temperature = 0});
    std::vector<Row> rows;
    if (prompt) {
      const infer::ForwardWork work = forward_work(loaded.model, prompt);
      const double shortest = known * infer::shortest_time(work, limits, options.compute);
      rows.push_back(measure(name_of_test("pp", prompt), prompt, runs(), shortest, [&] {
        session.rewind(depth);
        session.feed(std::span(ids).first(static_cast<std::size_t>(prompt)));
      }));
      rows.back().operations = work.products + work.attention;
    }
    if (generate) {
      rows.push_back(measure(name_of_test("tg", generate), generate, runs(),
                             known * static_cast<double>(generate) * bytes / read, [&] {
                               session.rewind(depth);
                               session.start(ids[0], greedy.settings(), greedy.seen(), generate);
                               for (std::int64_t i = 0; i < generate; ++i) session.next();
                             }));
      rows.back().bytes = bytes;
    }
    for (Row& r : rows) r.taken = taken.bytes();
    report(rows, options.compute);
  }

  // pp512; pp512@8192 after a context of 8192.
  std::string name_of_test(const char* kind, std::int64_t tokens) const {
    return depth ? fmt::format("{}{}@{}", kind, tokens, depth) : fmt::format("{}{}", kind, tokens);
  }

  // The operations of `tokens` after `depth` others, the logits of the last one.
  infer::ForwardWork forward_work(const models::Model& m, std::int64_t tokens) const {
    infer::ForwardWork work = infer::forward_work(m, tokens, 1);
    work.attention = infer::forward_work(m, depth + tokens, 1).attention -
                     (depth ? infer::forward_work(m, depth, 1).attention : 0);
    return work;
  }

  void measure_training(LoadedModel& loaded, std::uint64_t program) const {
    const TakenMemory taken(backend());
    Executor executor = make_executor();
    const auto limits = probe(1 << 20).first;
    const bool full = method == "full";
    if (full && compute == "fp8") fail(ErrorKind::usage, "bench: --compute fp8 is for frozen weights, and --method full trains all of them");
    train::LoraOptions adapter_options;
    adapter_options.rank = rank;
    nn::LoraSet lora;
    if (!full) lora = train::make_lora(loaded.model, adapter_options, true);
    train::Parameters parameters = full ? train::plan_weights(loaded.model) : train::Parameters(lora);
    const Compute arithmetic = resolve_training(loaded.model);
    const std::int64_t tokens = batch * seq_len;
    train::OptimizerOptions optimizer;
    optimizer.eight_bit = optim == "adamw-8bit";
    const Policy policy{
        .budget =
            memory ? training_budget(memory, program, loaded.model, executor.backend()) : SIZE_MAX};
    const models::Residence residence = train::choose_residence(
        loaded.model, parameters, executor.backend(), tokens, arithmetic, optimizer, policy);
    full ? train::take_weights(loaded.model, parameters)
         : models::make_resident(loaded.model, executor.backend(), residence);
    train::Trainer trainer(loaded.model, parameters, executor, tokens, arithmetic, optimizer, policy);
    const text::Batch data = some_batch(loaded.model.config.vocab_size);
    const infer::ForwardWork work = full ? infer::full_step_work(loaded.model, batch, seq_len)
                                         : infer::lora_step_work(loaded.model, lora, batch, seq_len);
    const double shortest =
        (limits_known() ? 1 : 0) * infer::shortest_time(work, limits, arithmetic);
    std::int64_t step = 0;
    Row row = measure(fmt::format("{}{}x{}", method, batch, seq_len), tokens, runs(), shortest, [&] {
      trainer.accumulate(data, 1.0f / static_cast<float>(tokens));
      trainer.step(++step, 1e-4f);
    });
    row.operations = work.products + work.attention;
    row.planned = trainer.memory().total();
    row.level = trainer.memory().level;
    if (residence.dense)
      row.level += fmt::format(", weights of {} layers kept as bf16", residence.dense);
    if (residence.streamed) row.level += fmt::format(", {} layers streamed", residence.streamed);
    row.taken = taken.bytes();
    report({row}, arithmetic);
  }

  static std::vector<std::int32_t> some_ids(std::int64_t n, std::int64_t vocabulary) {
    std::vector<std::int32_t> ids(static_cast<std::size_t>(n));
    for (std::int64_t i = 0; i < n; ++i)
      ids[i] = static_cast<std::int32_t>((i * 7919 + 11) % vocabulary);
    return ids;
  }

  // Rows that do not see each other, every token learned.
  text::Batch some_batch(std::int64_t vocabulary) const {
    const std::int64_t tokens = batch * seq_len;
    text::Batch b;
    b.ids = some_ids(tokens, vocabulary);
    b.labels.resize(tokens), b.positions.resize(tokens), b.lo.resize(tokens);
    for (std::int64_t i = 0; i < tokens; ++i) {
      b.positions[i] = static_cast<std::int32_t>(i % seq_len);
      b.lo[i] = static_cast<std::int32_t>(i - i % seq_len);
      b.labels[i] = (i + 1) % seq_len ? b.ids[i + 1] : text::kIgnore;
    }
    b.tokens = b.trained = tokens;
    return b;
  }

  // A GPU's plans are recorded for replay in their second run, which is slower than all others.
  Runs runs() const { return {limits_known() ? 1 : 3, repeats}; }

  // Only the CPU's are probed.
  bool limits_known() const { return backend().compute_place() == Place{}; }

  // The limits, and the bandwidth at which a working set of this size can be read (it may fit a
  // cache).
  std::pair<cpu::Limits, double> probe(double bytes) const {
    cpu::Pool pool(thread_count());
    return {cpu::probe_limits(pool), cpu::probe_read(pool, static_cast<std::size_t>(bytes))};
  }

  void report(const std::vector<Row>& rows, Compute compute) const {
    if (json) return report_json(rows, compute);
    print(fmt::format("{}, {} arithmetic, {} threads\n{:<12}{:>16}{:>10}{:>9}\n", model,
                      name_of(compute), thread_count(), "test", "tokens/s", "±", "limit"));
    for (const Row& r : rows) {
      print(fmt::format("{:<12}{:>16.1f}{:>10.1f}{:>9}\n", r.test, r.rate, r.deviation,
                        r.limit_fraction > 0 ? fmt::format("{:.0f} %", 100 * r.limit_fraction)
                                             : std::string("–")));
      if (train)
        print(fmt::format("memory: planned {:.2f} GiB, taken {:.2f} GiB ({})\n",
                          static_cast<double>(r.planned) / (1 << 30),
                          static_cast<double>(r.taken) / (1 << 30), r.level));
    }
  }

  void report_json(const std::vector<Row>& rows, Compute compute) const {
    JsonWriter w;
    w.begin_array();
    for (const Row& r : rows) {
      w.begin_object().key("test").value(r.test);
      w.key("tokens_per_second").value(r.rate).key("stddev").value(r.deviation);
      w.key("limit_fraction");
      r.limit_fraction > 0 ? w.value(r.limit_fraction) : w.null();
      w.key("compute").value(name_of(compute)).key("seconds").begin_array();
      for (double s : r.seconds) w.value(s);
      w.end_array();
      if (r.operations > 0) w.key("operations").value(r.operations);
      if (r.bytes > 0) w.key("bytes").value(r.bytes);
      w.key("peak_bytes").value(r.taken);
      if (train) w.key("planned_bytes").value(r.planned).key("level").value(r.level);
      w.end_object();
    }
    print(w.end_array().text() + "\n");
  }
};

}  // namespace

COMMAND(bench, Bench)

}  // namespace supersonic::cli
