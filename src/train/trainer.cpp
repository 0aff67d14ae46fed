#include "train/trainer.h"

#include <malloc.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/autograd.h"
#include "core/device.h"
#include "ops/accumulate.h"
#include "ops/adamw.h"
#include "ops/map/arithmetic.h"
#include "ops/view.h"
#include "text/dataset_pack.h"

namespace supersonic::train {
namespace {

constexpr std::int64_t kBlock = 256;  // of 8-bit moments
constexpr double kSpare = 0.5;  // of the tightest plan's working memory, beside it for what need not be recomputed then

StorageRef make(DType t, std::int64_t n, const char* name) { return Storage::make({Shape{n}, t, nullptr}, name); }

std::int64_t blocks_of(std::int64_t n) { return (n + kBlock - 1) / kBlock; }

// One AdamW step over all groups, with the gathered gradients, which are cleared. They are clipped by their norm together.
Tensors record_update(std::span<const PlacedGroup> groups, const StorageRef& hyper, const OptimizerOptions& o) {
  const Tensor h = from_storage(hyper);
  Tensor squares;
  for (const PlacedGroup& group : groups) {
    const Tensor s = sum_squares(from_storage(group.gradients));
    squares = squares ? add(squares, s) : s;
  }
  for (const PlacedGroup& group : groups) {
    const Tensor g = from_storage(group.gradients), p = from_storage(group.values);
    const float decay = group.decay ? o.weight_decay : 0.0f;
    auto moment = [&](int i) { return from_storage(group.moments[static_cast<std::size_t>(i)]); };
    if (group.moments.size() == 4)
      record(AdamW8bit{o.beta1, o.beta2, o.eps, decay, o.seed}, {p, moment(0), moment(1), moment(2), moment(3), g, h, squares}, Where::current());
    else
      record(AdamW{o.beta1, o.beta2, o.eps, decay, o.seed}, {p, moment(0), moment(1), g, h, squares}, Where::current());
    clear(g);
  }
  return {squares};
}

struct MomentSpec {
  const char* name;
  Spec spec;
};
std::vector<MomentSpec> moments_of(const Parameters::Group& group, const OptimizerOptions& o) {
  const std::int64_t n = group.values->spec.numel();
  if (!o.eight_bit || !group.coded) return {{"m", {Shape{n}, DType::f32, nullptr}}, {"v", {Shape{n}, DType::f32, nullptr}}};
  const Spec codes{Shape{n}, DType::u8, nullptr}, scales{Shape{blocks_of(n)}, DType::f32, nullptr};
  return {{"m", codes}, {"v", codes}, {"m_max", scales}, {"v_max", scales}};
}

// What the loss is differentiated by, and where each gradient lies in the groups' arrays.
struct Differentiated {
  Tensors values;
  std::vector<std::pair<std::size_t, std::int64_t>> places;  // group, offset in elements
};
Differentiated differentiated(const models::Model& model, const Parameters& parameters, const nn::Recorder& r) {
  Differentiated d;
  if (!parameters.whole()) {
    d.values = r.trainable;
    for (const std::int64_t at : r.offsets) d.places.emplace_back(0, at);
    return d;
  }
  for (const StorageRef& s : weights_of(model)) d.values.push_back(from_storage(s));
  for (const Parameters::Slot& s : parameters.slots) d.places.emplace_back(s.group, s.offset);
  return d;
}

// One micro-batch: forward, backward, gradients added up. lora: the adapter where kernels read it.
Tensors record_micro_batch(const models::Model& model, const Parameters& parameters, const nn::LoraSet& lora, std::span<const PlacedGroup> groups,
                           const Feeds& feeds, Compute compute) {
  nn::Recorder r;
  r.activation = activation_of(compute);
  r.lora = &lora;
  r.train = true;
  const Tensor h = models::hidden(r, model, feeds.inputs());
  const Tensor loss = models::loss(model, h, from_storage(feeds.labels), from_storage(feeds.scale));
  const Differentiated d = differentiated(model, parameters, r);
  backward(loss, d.values, [&](int i, const Tensor& g) {
    const auto [group, at] = d.places[static_cast<std::size_t>(i)];
    supersonic::accumulate(reshape(slice(from_storage(groups[group].gradients), 0, at, at + g.numel()), g.shape()), g);
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
  const Parameters& parameters;
  Backend& backend;
  OptimizerOptions optimizer;
  nn::LoraSet lora;
  std::vector<PlacedGroup> groups;
  Feeds feeds;

  Unmade(const models::Model& m, const Parameters& p, Backend& b, std::int64_t tokens, const OptimizerOptions& o)
      : model(m), parameters(p), backend(b), optimizer(o), feeds(tokens) {
    for (const Parameters::Group& g : p.groups) {
      PlacedGroup here{without_memory(g.values->spec), without_memory({g.values->spec.shape, DType::f32, nullptr}), {}, g.decay};
      for (const MomentSpec& moment : moments_of(g, o)) here.moments.push_back(without_memory(moment.spec));
      groups.push_back(std::move(here));
    }
    if (p.lora) lora = *p.lora, lora.values = groups[0].values, lora.gradients = groups[0].gradients;
  }

  StorageRef without_memory(const Spec& spec) const {
    StorageRef there = Storage::external(spec, {}, "planned");
    there->place = backend.compute_place();
    return there;
  }

  // With the weights in the groups' arrays, where they are trained.
  models::Model placed_model(const models::Residence& residence) const {
    const models::Model placed = models::planned_residence(model, backend, residence);
    if (!parameters.whole()) return placed;
    std::vector<StorageRef> arrays;
    for (const PlacedGroup& g : groups) arrays.push_back(g.values);
    return with_weights(placed, parameters, arrays);
  }

  TrainMemory memory(const models::Residence& residence, const Policy& policy, bool with_update = false) const {
    const models::Model placed = placed_model(residence);
    const Place place = backend.compute_place();
    TrainMemory m;
    if (!parameters.whole()) m.weights = placed.weight_bytes() - placed.outside;
    for (const PlacedGroup& g : groups) {
      m.parameters += g.values->bytes;
      m.gradients += g.gradients->bytes;
      for (const StorageRef& s : g.moments) m.moments += s->bytes;
    }
    m.feeds = feeds.bytes();
    if (place == Place{} && !parameters.whole()) m.saving = m.parameters;
    Policy rest = policy;
    rest.taken = m.total();
    const auto plan = plan_only([&] { return record_micro_batch(placed, parameters, lora, groups, feeds, rest.compute); }, backend, rest);
    m.arena = plan->peak(place);
    m.level = plan->level();
    if (!(place == Place{})) m.outside = placed.outside + plan->peak(Place{});
    if (!with_update) return m;
    const StorageRef hyper = make(DType::f32, 4, "hyper");
    m.arena = std::max(m.arena, plan_only([&] { return record_update(groups, hyper, optimizer); }, backend, {})->peak(place));
    return m;
  }
};

// How many layers' weights may be kept as bf16 in half of the memory that is left: products with them then need not decode them,
// twice in each step. The other half is left to what else runs on the device.
std::int64_t layers_to_decode(const models::Model& model, Compute compute, std::size_t left) {
  const std::size_t each = models::bytes_to_decode_layer(model);
  if (!each || compute == Compute::fp32 || compute == Compute::fp8) return 0;
  return static_cast<std::int64_t>(std::min(left / 2 / each, model.layers.size()));
}

}  // namespace

models::Residence choose_residence(const models::Model& model, const Parameters& parameters, Backend& backend, std::int64_t tokens, Compute compute,
                                   const OptimizerOptions& optimizer, Policy policy) {
  if (parameters.whole() || backend.compute_place() == Place{} || policy.budget == SIZE_MAX) return {};
  const Unmade run(model, parameters, backend, tokens, optimizer);
  policy.compute = compute;
  Policy kept = policy, least = policy;
  kept.checkpoint_regions = 0;
  kept.budget = SIZE_MAX;
  least.least = true;
  if (const std::size_t taken = run.memory({}, kept).total(); taken <= policy.budget)
    return {.dense = layers_to_decode(model, compute, policy.budget - taken)};
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

TrainMemory planned_memory(const models::Model& model, const Parameters& parameters, Backend& backend, std::int64_t tokens, Compute compute,
                           const OptimizerOptions& optimizer, Policy policy) {
  policy.compute = compute;
  return Unmade(model, parameters, backend, tokens, optimizer)
      .memory(choose_residence(model, parameters, backend, tokens, compute, optimizer, policy), policy, true);
}

// The captured plans hold the storages that they were made for, so that these are placed once and for all.
Trainer::Trainer(const models::Model& model, const Parameters& parameters, Executor& executor, std::int64_t tokens, Compute compute,
                 const OptimizerOptions& optimizer, Policy policy)
    : model_(model), parameters_(parameters), executor_(executor), tokens_(tokens), optimizer_(optimizer), feeds_(tokens), compute_(compute) {
  hyper_ = make(DType::f32, 4, "hyper");
  place_parameters();
  for (std::size_t g = 0; g < here_.size(); ++g) {
    state_.push_back({parameters_.groups[g].name, parameters_.groups[g].values, here_[g].values});
    add_moments(g);
  }
  policy.compute = compute;
  policy.taken = fixed_memory().total();
  train_ = Program::capture([&] { return record_micro_batch(model_, parameters_, lora_, here_, feeds_, compute); }, executor, policy);
  update_ = Program::capture([&] { return record_update(here_, hyper_, optimizer_); }, executor, {});
  malloc_trim(0);  // what planning took goes back before the run fills its memory
}

void Trainer::place_parameters() {
  Backend& backend = executor_.backend();
  std::vector<StorageRef> arrays;
  for (const Parameters::Group& g : parameters_.groups) {
    CHECK(g.values->as<void>(), "the group '{}' was planned and has no memory: take_weights() comes first", g.name);
    const Spec gradients{g.values->spec.shape, DType::f32, nullptr};
    here_.push_back({resident(g.values, backend), g.gradients ? resident(g.gradients, backend) : backend.storage(gradients, g.name + " gradients"), {}, g.decay});
    arrays.push_back(here_.back().values);
  }
  if (parameters_.lora) {
    lora_ = *parameters_.lora;
    lora_.values = here_[0].values, lora_.gradients = here_[0].gradients;
  } else {
    model_ = with_weights(model_, parameters_, arrays);
    models::make_resident(model_, backend);  // frequencies
  }
}

void Trainer::add_moments(std::size_t group) {
  Backend& backend = executor_.backend();
  const Parameters::Group& g = parameters_.groups[group];
  for (const MomentSpec& m : moments_of(g, optimizer_)) {
    Mirror mirror{g.prefix + m.name, Storage::make(m.spec, m.name), {}};
    const bool signed_codes = here_[group].moments.empty() && m.spec.dtype == DType::u8;
    if (signed_codes) std::memset(mirror.host->as<void>(), 127, mirror.host->bytes);  // the signed map's code of 0
    const bool apart = !(mirror.host->place == backend.compute_place());
    mirror.here = apart && !signed_codes ? backend.storage(m.spec, m.name) : resident(mirror.host, backend);
    here_[group].moments.push_back(mirror.here);
    state_.push_back(std::move(mirror));
  }
}

void Trainer::fill_feeds(const text::Batch& b, float scale) {
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

double Trainer::accumulate(const text::Batch& batch, float scale) {
  fill_feeds(batch, scale);
  train_.run();
  return train_.result(0).values<float>()[0];
}

double Trainer::step(std::int64_t step, float learning_rate) {
  auto* hyper = hyper_->as<float>();
  hyper[0] = learning_rate;
  hyper[1] = static_cast<float>(step);
  hyper[2] = optimizer_.max_grad_norm;
  update_.run();
  return std::sqrt(static_cast<double>(update_.result(0).values<float>()[0]));
}

double Trainer::evaluate(const text::Batch& batch) {
  if (!evaluate_) {
    Policy policy;
    policy.compute = compute_;
    evaluate_ = Program::capture(
        [&]() -> Tensors {
          nn::Recorder r;
          r.activation = activation_of(compute_);
          r.lora = &lora_;
          return {models::loss(model_, models::hidden(r, model_, feeds_.inputs()), from_storage(feeds_.labels), from_storage(feeds_.scale))};
        },
        executor_, policy);
  }
  fill_feeds(batch, 1.0f);
  evaluate_->run();
  return evaluate_->result(0).values<float>()[0];
}

TrainMemory Trainer::fixed_memory() const {
  TrainMemory m;
  if (!parameters_.whole()) m.weights = model_.weight_bytes() - model_.outside;
  for (const PlacedGroup& g : here_) {
    m.parameters += g.values->bytes;
    m.gradients += g.gradients->bytes;
    for (const StorageRef& s : g.moments) m.moments += s->bytes;
  }
  if (executor_.backend().compute_place() == Place{} && !parameters_.whole()) m.saving = m.parameters;
  m.feeds = feeds_.bytes();
  return m;
}

TrainMemory Trainer::memory() const {
  TrainMemory m = fixed_memory();
  const Place place = executor_.backend().compute_place();
  m.arena = std::max(train_.plan().peak(place), update_.plan().peak(place));
  m.level = train_.plan().level();
  if (!(place == Place{})) m.outside = model_.outside + train_.plan().peak(Place{});
  return m;
}

void Trainer::bring_home(const Mirror& m) const {
  if (m.host != m.here) copy_contents(*m.host, *m.here, executor_.backend());
}

void Trainer::bring_home() const {
  for (std::size_t g = 0; g < here_.size(); ++g)
    if (parameters_.groups[g].values != here_[g].values) copy_contents(*parameters_.groups[g].values, *here_[g].values, executor_.backend());
}

std::vector<std::pair<std::string, StorageRef>> Trainer::state() const {
  std::vector<std::pair<std::string, StorageRef>> all;
  for (const Mirror& m : state_) {
    bring_home(m);
    all.emplace_back(m.name, m.host);
  }
  return all;
}

void Trainer::state_written() {
  for (const Mirror& m : state_)
    if (m.host != m.here) copy_contents(*m.here, *m.host, executor_.backend());
}

}  // namespace supersonic::train
