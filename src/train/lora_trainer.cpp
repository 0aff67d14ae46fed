#include "train/lora_trainer.h"

#include <malloc.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <thread>

#include "core/autograd.h"
#include "core/device.h"
#include "core/machine.h"
#include "core/rng.h"
#include "ops/accumulate.h"
#include "ops/adamw.h"
#include "ops/view.h"
#include "text/dataset_pack.h"

namespace supersonic::train {
namespace {

constexpr std::int64_t kBlock = 256;  // of 8-bit moments
constexpr double kSpare = 0.5;  // of the tightest plan's working memory, beside it for what need not be recomputed then

StorageRef make(DType t, std::int64_t n, const char* name) { return Storage::make({Shape{n}, t, nullptr}, name); }

bool targeted(const std::string& module, const std::vector<std::string>& targets) {
  if (targets.empty()) return true;
  return std::any_of(targets.begin(), targets.end(), [&](const std::string& t) {
    return module.size() >= t.size() && module.compare(module.size() - t.size(), t.size(), t) == 0;
  });
}

std::int64_t blocks_of(std::int64_t n) { return (n + kBlock - 1) / kBlock; }

// One AdamW step over all adapter matrices, with the gathered gradients, which are cleared.
Tensors record_update(const nn::LoraSet& lora, std::span<const StorageRef> moments, const StorageRef& hyper, const OptimizerOptions& o) {
  const Tensor g = from_storage(lora.gradients), squares = sum_squares(g), p = from_storage(lora.values), h = from_storage(hyper);
  auto moment = [&](int i) { return from_storage(moments[static_cast<std::size_t>(i)]); };
  if (o.eight_bit) {
    record(AdamW8bit{o.beta1, o.beta2, o.eps, o.weight_decay}, {p, moment(0), moment(1), moment(2), moment(3), g, h, squares},
           Where::current());
  } else {
    record(AdamW{o.beta1, o.beta2, o.eps, o.weight_decay}, {p, moment(0), moment(1), g, h, squares}, Where::current());
  }
  assign(g, fill(g.shape(), g.dtype(), 0.0));
  return {squares};
}

struct MomentSpec {
  const char* name;
  Spec spec;
};
std::vector<MomentSpec> moments_of(std::int64_t n, const OptimizerOptions& o) {
  if (!o.eight_bit) return {{"m", {Shape{n}, DType::f32, nullptr}}, {"v", {Shape{n}, DType::f32, nullptr}}};
  const Spec codes{Shape{n}, DType::u8, nullptr}, scales{Shape{blocks_of(n)}, DType::f32, nullptr};
  return {{"m", codes}, {"v", codes}, {"m_max", scales}, {"v_max", scales}};
}

// One micro-batch: forward, backward, gradients added up.
Tensors record_micro_batch(const models::Model& model, const nn::LoraSet& lora, const Feeds& feeds, Compute compute) {
  nn::Recorder r;
  r.activation = activation_of(compute);
  r.lora = &lora;
  r.train = true;
  const Tensor h = models::hidden(r, model, feeds.inputs());
  const Tensor loss = models::loss(model, h, from_storage(feeds.labels), from_storage(feeds.scale));
  backward(loss, r.trainable, [&](int i, const Tensor& g) {
    const std::int64_t at = r.offsets[i];
    supersonic::accumulate(reshape(slice(from_storage(lora.gradients), 0, at, at + g.numel()), g.shape()), g);
  });
  return {loss};
}

}  // namespace

Feeds::Feeds(std::int64_t tokens)
    : ids(make(DType::i32, tokens, "ids")), positions(make(DType::i32, tokens, "positions")), lo(make(DType::i32, tokens, "lo")),
      hi(make(DType::i32, tokens, "hi")), window_lo(make(DType::i32, tokens, "window_lo")), labels(make(DType::i32, tokens, "labels")),
      scale(make(DType::f32, 1, "scale")) {}

models::Inputs Feeds::inputs() const {
  return {from_storage(ids), from_storage(positions), from_storage(lo), from_storage(hi), from_storage(window_lo)};
}

std::size_t Feeds::bytes() const {
  std::size_t n = 0;
  for (const auto& s : {ids, positions, lo, hi, window_lo, labels}) n += s->bytes;
  return n;
}

namespace {

// A run that is planned and not made: its storages have places and no memory.
struct Unmade {
  const models::Model& model;
  Backend& backend;
  OptimizerOptions optimizer;
  nn::LoraSet lora;
  Feeds feeds;
  std::vector<StorageRef> moments;

  Unmade(const models::Model& m, const nn::LoraSet& set, Backend& b, std::int64_t tokens, const OptimizerOptions& o)
      : model(m), backend(b), optimizer(o), lora(set), feeds(tokens) {
    for (StorageRef* s : {&lora.values, &lora.gradients}) *s = without_memory((*s)->spec);
    for (const MomentSpec& moment : moments_of(set.size, o)) moments.push_back(without_memory(moment.spec));
  }

  StorageRef without_memory(const Spec& spec) const {
    StorageRef there = Storage::external(spec, {}, "planned");
    there->place = backend.compute_place();
    return there;
  }

  TrainMemory memory(const models::Residence& residence, const Policy& policy, bool with_update = false) const {
    const models::Model placed = models::planned_residence(model, backend, residence);
    const Place place = backend.compute_place();
    TrainMemory m;
    m.weights = placed.weight_bytes() - placed.outside;
    m.adapter = lora.values->bytes;
    m.gradients = lora.gradients->bytes;
    for (const StorageRef& s : moments) m.moments += s->bytes;
    m.feeds = feeds.bytes();
    if (place == Place{}) m.saving = m.adapter;
    Policy rest = policy;
    rest.taken = m.total();
    const auto plan = plan_only([&] { return record_micro_batch(placed, lora, feeds, rest.compute); }, backend, rest);
    m.arena = plan->peak(place);
    m.level = plan->level();
    if (!(place == Place{})) m.outside = placed.outside + plan->peak(Place{});
    if (!with_update) return m;
    const StorageRef hyper = make(DType::f32, 4, "hyper");
    m.arena = std::max(m.arena, plan_only([&] { return record_update(lora, moments, hyper, optimizer); }, backend, {})->peak(place));
    return m;
  }
};

}  // namespace

models::Residence choose_residence(const models::Model& model, const nn::LoraSet& lora, Backend& backend, std::int64_t tokens, Compute compute,
                                   const OptimizerOptions& optimizer, Policy policy) {
  if (backend.compute_place() == Place{} || policy.budget == SIZE_MAX) return {};
  const Unmade run(model, lora, backend, tokens, optimizer);
  policy.compute = compute;
  Policy kept = policy, least = policy;
  kept.checkpoint_regions = 0;
  kept.budget = SIZE_MAX;
  least.least = true;
  if (run.memory({}, kept).total() <= policy.budget) return {};
  models::Residence r{!(model.head == model.embedding), 0};
  const auto layers = static_cast<std::int64_t>(model.layers.size());
  auto fits = [&](std::int64_t streamed) {
    const TrainMemory m = run.memory({r.table_outside, streamed}, least);
    return static_cast<double>(m.total()) + kSpare * static_cast<double>(m.arena) <= static_cast<double>(policy.budget);
  };
  if (fits(0)) return r;
  std::int64_t low = 0;  // does not fit; all of them, if anything, do
  r.streamed = layers;
  while (r.streamed - low > 1) {
    const std::int64_t middle = (low + r.streamed) / 2;
    (fits(middle) ? r.streamed : low) = middle;
  }
  return r;
}

TrainMemory planned_memory(const models::Model& model, const nn::LoraSet& lora, Backend& backend, std::int64_t tokens, Compute compute,
                           const OptimizerOptions& optimizer, Policy policy) {
  policy.compute = compute;
  return Unmade(model, lora, backend, tokens, optimizer)
      .memory(choose_residence(model, lora, backend, tokens, compute, optimizer, policy), policy, true);
}

namespace {

// Kaiming with a = sqrt 5, as PEFT: uniform in ±1/sqrt(in).
void draw_a(const nn::LoraSet& set, std::uint64_t seed, std::size_t i) {
  const nn::LoraSlot& s = set.slots[i];
  Rng rng(seed, 0, rng_site("lora A"), static_cast<std::uint32_t>(i));
  const double bound = 1.0 / std::sqrt(static_cast<double>(s.in));
  float* const a = set.values->as<float>() + s.a;
  for (std::int64_t k = 0; k < s.rank * s.in; ++k) a[k] = static_cast<float>((2 * rng.uniform() - 1) * bound);
}

}  // namespace

nn::LoraSet make_lora(models::Model& model, const LoraOptions& options, bool train) {
  nn::LoraSet set;
  const float scale = static_cast<float>(options.alpha / static_cast<double>(options.rank));
  for (nn::Linear* l : model.linears()) {
    l->lora = -1;
    if (!targeted(l->name, options.targets)) continue;
    const Shape& w = l->weight->spec.shape;
    l->lora = set.add(l->name, options.rank, w[1], w[0], scale);
  }
  if (set.slots.empty()) fail(ErrorKind::usage, "no linear layer matches the targets: use all-linear, or names such as q_proj");
  set.allocate(train);
  // Each matrix has a stream of its own, so who draws it does not matter; one thread would take 0.2 s for 8 billion weights.
  const auto threads = std::min(set.slots.size(), static_cast<std::size_t>(usable_threads()));
  std::vector<std::jthread> all;
  for (std::size_t first = 0; first < threads; ++first)
    all.emplace_back([&set, &options, first, threads] {
      for (std::size_t i = first; i < set.slots.size(); i += threads) draw_a(set, options.seed, i);
    });
  all.clear();  // joins
  return set;
}

LoraTrainer::LoraTrainer(const models::Model& model, nn::LoraSet& lora, Executor& executor, std::int64_t tokens,
                         Compute compute, const OptimizerOptions& optimizer, Policy policy)
    : model_(model), lora_(lora), here_(lora.resident(executor.backend())), executor_(executor), tokens_(tokens), optimizer_(optimizer),
      feeds_(tokens), compute_(compute) {
  hyper_ = make(DType::f32, 4, "hyper");
  state_ = {{"lora", lora.values, here_.values}};
  for (const MomentSpec& m : moments_of(lora.size, optimizer)) state_.push_back({m.name, Storage::make(m.spec, m.name), {}});
  if (optimizer.eight_bit) std::memset(state_[1].host->as<void>(), 127, state_[1].host->bytes);  // the signed map's code of 0
  for (Mirror& m : state_)
    if (!m.here) m.here = resident(m.host, executor.backend());

  policy.compute = compute;
  policy.taken = fixed_memory().total();
  train_ = Program::capture([&] { return record_micro_batch(model_, here_, feeds_, compute); }, executor, policy);
  std::vector<StorageRef> moments;
  for (std::size_t i = 1; i < state_.size(); ++i) moments.push_back(state_[i].here);
  update_ = Program::capture([&] { return record_update(here_, moments, hyper_, optimizer_); }, executor, {});
  malloc_trim(0);  // what planning took goes back before the run fills its memory
}

void LoraTrainer::fill_feeds(const text::Batch& b, float scale) {
  CHECK(static_cast<std::int64_t>(b.ids.size()) == tokens_, "a micro-batch has {} tokens, got {}", tokens_, b.ids.size());
  std::memcpy(feeds_.ids->as<void>(), b.ids.data(), feeds_.ids->bytes);
  std::memcpy(feeds_.positions->as<void>(), b.positions.data(), feeds_.positions->bytes);
  std::memcpy(feeds_.lo->as<void>(), b.lo.data(), feeds_.lo->bytes);
  std::memcpy(feeds_.labels->as<void>(), b.labels.data(), feeds_.labels->bytes);
  const std::int64_t window = model_.config.sliding_window;
  for (std::int64_t i = 0; i < tokens_; ++i) {
    feeds_.hi->as<std::int32_t>()[i] = static_cast<std::int32_t>(i);
    feeds_.window_lo->as<std::int32_t>()[i] = std::max(b.lo[i], static_cast<std::int32_t>(i + 1 - window));
  }
  *feeds_.scale->as<float>() = scale;
}

double LoraTrainer::accumulate(const text::Batch& batch, float scale) {
  fill_feeds(batch, scale);
  train_.run();
  return train_.result(0).values<float>()[0];
}

double LoraTrainer::step(std::int64_t step, float learning_rate) {
  auto* hyper = hyper_->as<float>();
  hyper[0] = learning_rate;
  hyper[1] = static_cast<float>(step);
  hyper[2] = optimizer_.max_grad_norm;
  update_.run();
  return std::sqrt(static_cast<double>(update_.result(0).values<float>()[0]));
}

double LoraTrainer::evaluate(const text::Batch& batch) {
  if (!evaluate_) {
    Policy policy;
    policy.compute = compute_;
    evaluate_ = Program::capture(
        [&]() -> Tensors {
          nn::Recorder r;
          r.activation = activation_of(compute_);
          r.lora = &here_;
          return {models::loss(model_, models::hidden(r, model_, feeds_.inputs()), from_storage(feeds_.labels), from_storage(feeds_.scale))};
        },
        executor_, policy);
  }
  fill_feeds(batch, 1.0f);
  evaluate_->run();
  return evaluate_->result(0).values<float>()[0];
}

TrainMemory LoraTrainer::fixed_memory() const {
  TrainMemory m;
  m.weights = model_.weight_bytes() - model_.outside;
  m.adapter = lora_.values->bytes;
  m.gradients = lora_.gradients->bytes;
  if (executor_.backend().compute_place() == Place{}) m.saving = m.adapter;
  for (const Mirror& s : state_) m.moments += s.here->bytes;
  m.moments -= m.adapter;
  m.feeds = feeds_.bytes();
  return m;
}

TrainMemory LoraTrainer::memory() const {
  TrainMemory m = fixed_memory();
  const Place place = executor_.backend().compute_place();
  m.arena = std::max(train_.plan().peak(place), update_.plan().peak(place));
  m.level = train_.plan().level();
  if (!(place == Place{})) m.outside = model_.outside + train_.plan().peak(Place{});
  return m;
}

void LoraTrainer::bring_home(const Mirror& m) const {
  if (m.host != m.here) copy_contents(*m.host, *m.here, executor_.backend());
}

const nn::LoraSet& LoraTrainer::lora() const {
  bring_home(state_[0]);
  return lora_;
}

std::vector<std::pair<std::string, StorageRef>> LoraTrainer::state() const {
  std::vector<std::pair<std::string, StorageRef>> all;
  for (const Mirror& m : state_) {
    bring_home(m);
    all.emplace_back(m.name, m.host);
  }
  return all;
}

void LoraTrainer::state_written() {
  for (const Mirror& m : state_)
    if (m.host != m.here) copy_contents(*m.here, *m.host, executor_.backend());
}

}  // namespace supersonic::train
