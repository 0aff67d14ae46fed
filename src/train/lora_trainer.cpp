#include "train/lora_trainer.h"

#include <malloc.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/autograd.h"
#include "core/device.h"
#include "core/rng.h"
#include "ops/accumulate.h"
#include "ops/adamw.h"
#include "ops/view.h"
#include "text/dataset_pack.h"

namespace supersonic::train {
namespace {

constexpr std::int64_t kBlock = 256;  // of 8-bit moments
constexpr double kSpare = 0.6;  // of the tightest plan's working memory: beside it, for copies that start early and for what need not be recomputed

StorageRef make(DType t, std::int64_t n, const char* name) { return Storage::make({Shape{n}, t, nullptr}, name); }

bool targeted(const std::string& module, const std::vector<std::string>& targets) {
  if (targets.empty()) return true;
  return std::any_of(targets.begin(), targets.end(), [&](const std::string& t) {
    return module.size() >= t.size() && module.compare(module.size() - t.size(), t.size(), t) == 0;
  });
}

std::int64_t blocks_of(std::int64_t n) { return (n + kBlock - 1) / kBlock; }

// One micro-batch: forward, backward, gradients added up.
Tensors record_micro_batch(const models::Model& model, const nn::LoraSet& lora, const Feeds& feeds, Compute compute) {
  nn::Recorder r;
  r.activation = compute == Compute::bf16 ? DType::bf16 : DType::f32;
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

StorageRef without_memory(const StorageRef& s, Place place) {
  StorageRef there = Storage::external(s->spec, {}, s->name, [s] {});
  there->place = place;
  return there;
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

models::Residence choose_residence(const models::Model& model, const nn::LoraSet& lora, Backend& backend, std::int64_t tokens, Compute compute,
                                   const OptimizerOptions& optimizer, Policy policy) {
  if (backend.compute_place() == Place{} || policy.budget == SIZE_MAX) return {};
  nn::LoraSet there = lora;
  for (StorageRef* s : {&there.values, &there.gradients}) *s = without_memory(*s, backend.compute_place());
  const Feeds feeds(tokens);
  const std::int64_t n = lora.size;
  const std::size_t state = lora.values->bytes + lora.gradients->bytes + feeds.bytes() +
                            static_cast<std::size_t>(optimizer.eight_bit ? 2 * n + 8 * blocks_of(n) : 8 * n);
  policy.compute = compute;
  auto planned = [&](const models::Residence& r, const Policy& p) {
    const models::Model m = models::planned_residence(model, backend, r);
    const auto plan = plan_only([&] { return record_micro_batch(m, there, feeds, compute); }, backend, p);
    return std::pair{m.weight_bytes() - m.outside + state, plan};
  };
  Policy kept = policy, least = policy;
  kept.checkpoint_regions = 0;
  kept.budget = SIZE_MAX;
  least.least = true;
  const auto [all, whole] = planned({}, kept);
  if (all + whole->peak(backend.compute_place()) <= policy.budget) return {};
  models::Residence r{!(model.head == model.embedding), 0};
  const auto layers = static_cast<std::int64_t>(model.layers.size());
  auto fits = [&](std::int64_t streamed) {
    const auto [taken, plan] = planned({r.table_outside, streamed}, least);
    return static_cast<double>(taken) + (1 + kSpare) * static_cast<double>(plan->peak(backend.compute_place())) <=
           static_cast<double>(policy.budget);
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
  for (std::size_t i = 0; i < set.slots.size(); ++i) {
    const auto& s = set.slots[i];
    Rng rng(options.seed, 0, rng_site("lora A"), static_cast<std::uint32_t>(i));
    const double bound = 1.0 / std::sqrt(static_cast<double>(s.in));
    for (std::int64_t k = 0; k < s.rank * s.in; ++k)
      set.values->as<float>()[s.a + k] = static_cast<float>((2 * rng.uniform() - 1) * bound);
  }
  return set;
}

LoraTrainer::LoraTrainer(const models::Model& model, nn::LoraSet& lora, Executor& executor, std::int64_t tokens,
                         Compute compute, const OptimizerOptions& optimizer, Policy policy)
    : model_(model), lora_(lora), here_(lora.resident(executor.backend())), executor_(executor), tokens_(tokens), optimizer_(optimizer),
      feeds_(tokens), compute_(compute) {
  hyper_ = make(DType::f32, 4, "hyper");
  const std::int64_t n = lora.size, blocks = blocks_of(n);
  state_ = {{"lora", lora.values, here_.values}};
  auto add = [&](DType t, std::int64_t count, const char* name) { state_.push_back({name, make(t, count, name), {}}); };
  if (optimizer.eight_bit) {
    add(DType::u8, n, "m"), add(DType::u8, n, "v"), add(DType::f32, blocks, "m_max"), add(DType::f32, blocks, "v_max");
    std::memset(state_[1].host->as<void>(), 127, n);  // the signed map's code of 0
  } else {
    add(DType::f32, n, "m"), add(DType::f32, n, "v");
  }
  for (Mirror& m : state_)
    if (!m.here) m.here = resident(m.host, executor.backend());

  policy.compute = compute;
  policy.taken = fixed_memory().total();
  train_ = Program::capture([&] { return record_micro_batch(model_, here_, feeds_, compute); }, executor, policy);
  update_ = Program::capture(
      [&]() -> Tensors {
        const Tensor g = from_storage(here_.gradients), squares = sum_squares(g);
        const Tensor p = from_storage(here_.values), hyper = from_storage(hyper_);
        const auto& o = optimizer_;
        if (o.eight_bit) {
          record(AdamW8bit{o.beta1, o.beta2, o.eps, o.weight_decay},
                 {p, from_storage(moment(0)), from_storage(moment(1)), from_storage(moment(2)),
                  from_storage(moment(3)), g, hyper, squares},
                 Where::current());
        } else {
          record(AdamW{o.beta1, o.beta2, o.eps, o.weight_decay},
                 {p, from_storage(moment(0)), from_storage(moment(1)), g, hyper, squares}, Where::current());
        }
        assign(g, fill(g.shape(), g.dtype(), 0.0));
        return {squares};
      },
      executor, {});
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
          r.activation = compute_ == Compute::bf16 ? DType::bf16 : DType::f32;
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
