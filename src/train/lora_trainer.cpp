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

StorageRef make(DType t, std::int64_t n, const char* name) { return Storage::make({Shape{n}, t, nullptr}, name); }

bool targeted(const std::string& module, const std::vector<std::string>& targets) {
  if (targets.empty()) return true;
  return std::any_of(targets.begin(), targets.end(), [&](const std::string& t) {
    return module.size() >= t.size() && module.compare(module.size() - t.size(), t.size(), t) == 0;
  });
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
      compute_(compute) {
  ids_ = make(DType::i32, tokens, "ids");
  positions_ = make(DType::i32, tokens, "positions");
  lo_ = make(DType::i32, tokens, "lo");
  hi_ = make(DType::i32, tokens, "hi");
  window_lo_ = make(DType::i32, tokens, "window_lo");
  labels_ = make(DType::i32, tokens, "labels");
  scale_ = make(DType::f32, 1, "scale");
  hyper_ = make(DType::f32, 4, "hyper");
  const std::int64_t n = lora.size, blocks = (n + kBlock - 1) / kBlock;
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
  train_ = Program::capture(
      [&]() -> Tensors {
        nn::Recorder r;
        r.activation = compute == Compute::bf16 ? DType::bf16 : DType::f32;
        r.lora = &here_;
        r.train = true;
        const models::Inputs in{from_storage(ids_), from_storage(positions_), from_storage(lo_), from_storage(hi_),
                                from_storage(window_lo_)};
        const Tensor h = models::hidden(r, model_, in);
        const Tensor loss = models::loss(model_, h, from_storage(labels_), from_storage(scale_));
        backward(loss, r.trainable, [&](int i, const Tensor& g) {
          const std::int64_t at = r.offsets[i];
          supersonic::accumulate(reshape(slice(from_storage(here_.gradients), 0, at, at + g.numel()), g.shape()), g);
        });
        return {loss};
      },
      executor, policy);
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
  std::memcpy(ids_->as<void>(), b.ids.data(), ids_->bytes);
  std::memcpy(positions_->as<void>(), b.positions.data(), positions_->bytes);
  std::memcpy(lo_->as<void>(), b.lo.data(), lo_->bytes);
  std::memcpy(labels_->as<void>(), b.labels.data(), labels_->bytes);
  const std::int64_t window = model_.config.sliding_window;
  for (std::int64_t i = 0; i < tokens_; ++i) {
    hi_->as<std::int32_t>()[i] = static_cast<std::int32_t>(i);
    window_lo_->as<std::int32_t>()[i] = std::max(b.lo[i], static_cast<std::int32_t>(i + 1 - window));
  }
  *scale_->as<float>() = scale;
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
          const models::Inputs in{from_storage(ids_), from_storage(positions_), from_storage(lo_), from_storage(hi_),
                                  from_storage(window_lo_)};
          return {models::loss(model_, models::hidden(r, model_, in), from_storage(labels_), from_storage(scale_))};
        },
        executor_, policy);
  }
  fill_feeds(batch, 1.0f);
  evaluate_->run();
  return evaluate_->result(0).values<float>()[0];
}

TrainMemory LoraTrainer::fixed_memory() const {
  TrainMemory m;
  m.weights = model_.weight_bytes();
  m.adapter = lora_.values->bytes;
  m.gradients = lora_.gradients->bytes;
  if (executor_.backend().compute_place() == Place{}) m.saving = m.adapter;
  for (const Mirror& s : state_) m.moments += s.here->bytes;
  m.moments -= m.adapter;
  for (const auto& s : {ids_, positions_, lo_, hi_, window_lo_, labels_}) m.feeds += s->bytes;
  return m;
}

TrainMemory LoraTrainer::memory() const {
  TrainMemory m = fixed_memory();
  const Place place = executor_.backend().compute_place();
  m.arena = std::max(train_.plan().peak(place), update_.plan().peak(place));
  m.level = train_.plan().level();
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
