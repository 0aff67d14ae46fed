#include "infer/session.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "backend/cpu/pool.h"
#include "core/device.h"
#include "ops/sample_step.h"
#include "ops/view.h"

namespace supersonic::infer {
namespace {

constexpr std::int64_t kDefaultContext = 4096, kFirstContext = 256;
// Steps of up to so many tokens are padded to a power of two; that is the CPU's largest step, too. A GPU decodes the weights
// anew in each step, and so few rows do not fill it.
constexpr std::int64_t kMostPadded = 512, kDeviceChunk = 2048;

std::int64_t round_up_to_power(std::int64_t n) {
  std::int64_t p = 1;
  while (p < n) p *= 2;
  return p;
}

enum Feed { ids, positions, lo, hi, window_lo, at, last };
static_assert(static_cast<int>(StepFeed::window_lo) == window_lo && static_cast<int>(StepFeed::last) == last);

constexpr std::int64_t kChosen = 2;  // a step may choose while the host reads what the one before it chose

StepFeeds make_feeds(std::int64_t tokens) {
  return {tokens, Storage::make({Shape{5 * tokens + 2}, DType::i32, nullptr}, "step")};
}
std::int64_t begin_of(const StepFeeds& f, Feed feed) {
  return feed == last ? 5 * f.tokens + 1 : feed * f.tokens;
}
std::int32_t* numbers_of(const StepFeeds& f, Feed feed) {
  return f.numbers->as<std::int32_t>() + begin_of(f, feed);
}

Policy policy_of(const SessionOptions& options) {
  Policy policy;
  policy.compute = options.compute;
  return policy;
}

// Where a step's numbers lie, seen as the model's inputs.
struct StepInputs {
  models::Inputs in;
  Tensor at, last;
};
StepInputs inputs_of(const StepFeeds& f) {
  const Tensor all = from_storage(f.numbers);
  auto part = [&](Feed feed) {
    const std::int64_t begin = begin_of(f, feed);
    return slice(all, 0, begin, begin + (feed < Feed::at ? f.tokens : 1));
  };
  return {{part(ids), part(positions), part(lo), part(hi), part(window_lo)}, part(at), part(Feed::last)};
}

nn::Recorder recorder_of(const SessionOptions& options) {
  nn::Recorder recorder;
  recorder.activation = activation_of(options.compute);
  recorder.lora = options.lora;
  return recorder;
}

// One step over f.tokens tokens, attending the cache's first `context` rows.
Tensors record_step(const models::Model& model, const SessionOptions& options, const StepFeeds& f, const models::KvCache& cache,
                    std::int64_t context, bool want_logits) {
  nn::Recorder recorder = recorder_of(options);
  const StepInputs s = inputs_of(f);
  if (want_logits) return {models::next_logits(recorder, model, s.in, cache, s.at, context, s.last)};
  models::hidden(recorder, model, s.in, cache, s.at, context);
  return {};
}

// One step over the token that the step before chose.
Tensors record_sampled_step(const models::Model& model, const SessionOptions& options, const SampleFeeds& f, const models::KvCache& cache,
                            std::int64_t context) {
  nn::Recorder recorder = recorder_of(options);
  const StepInputs s = inputs_of({1, f.step});
  const Tensor logits = models::next_logits(recorder, model, s.in, cache, s.at, context, s.last);
  sample_step(from_storage(f.step), from_storage(f.seen), from_storage(f.chosen), logits, from_storage(f.settings),
              model.config.sliding_window);
  return {};
}

std::array<Spec, 4> sample_specs(const models::Model& model) {
  return {{{Shape{kStepFeeds}, DType::i32, nullptr}, {Shape{model.head->spec.shape[0]}, DType::u8, nullptr},
           {Shape{kSamplingWords}, DType::i32, nullptr}, {Shape{kChosen}, DType::i32, nullptr}}};
}

SampleFeeds make_sample_feeds(const models::Model& model, Backend& backend) {
  const auto [step, seen, settings, chosen] = sample_specs(model);
  SampleFeeds f;
  f.step = backend.storage(step, "step"), f.seen = backend.storage(seen, "seen tokens");
  f.settings = backend.storage(settings, "sampling");
  const Backend::Locked ring = backend.lock(Storage::make(chosen, "chosen tokens"));
  f.chosen = ring.read, f.chosen_on_host = ring.copied;
  return f;
}

// Writes the beginning of a storage that may lie on a device; the rest becomes 0.
void put(const Storage& to, const void* from, std::size_t bytes, Backend& backend) {
  const StorageRef here = to.place == Place{} ? StorageRef() : Storage::make(to.spec, to.name);
  const Storage& staged = here ? *here : to;
  std::memcpy(staged.as<std::byte>(), from, bytes);
  std::memset(staged.as<std::byte>() + bytes, 0, staged.bytes - bytes);
  if (here) copy_contents(to, *here, backend);
}

// The context that a caller gets; the cache itself has room for a whole padded step more, since padding rows of a step land
// behind the last real one.
std::int64_t capacity_of(const models::Model& model, const SessionOptions& options) {
  // longrope's divisors are those of the whole context, so that one that nobody asked for stays with the first ones.
  const io::RopeScaling& scaling = model.config.rope_scaling;
  const bool longrope = scaling.kind == io::RopeScaling::Kind::longrope;
  const std::int64_t trained = longrope ? scaling.original_max_position : model.config.max_position_embeddings;
  if (options.context > 0) models::check_context(model, options.context);
  return std::max(options.context > 0 ? options.context : std::min(kDefaultContext, trained), std::int64_t{16});
}

std::int64_t chunk_of(const SessionOptions& options, Backend& backend) {
  if (options.chunk > 0) return options.chunk;
  return backend.compute_place() == Place{} ? kMostPadded : kDeviceChunk;
}

// How many of the tokens that are left the next step takes: from kMostPadded on a whole power of two.
std::int64_t next_tokens(std::int64_t left, std::int64_t chunk) {
  if (left >= chunk) return chunk;
  return left <= kMostPadded ? left : static_cast<std::int64_t>(std::bit_floor(static_cast<std::uint64_t>(left)));
}

}  // namespace

SessionMemory plan_session(const models::Model& model, Backend& backend, const SessionOptions& options) {
  const std::int64_t chunk = chunk_of(options, backend), capacity = capacity_of(model, options),
                     rows = capacity + std::min(chunk, kMostPadded);
  const Spec spec = models::kv_cache_spec(model, rows, options.kv_type, backend);
  models::KvCache cache;  // addresses are not needed, but where they would be is
  cache.capacity = capacity;
  SessionMemory memory;
  for (std::size_t i = 0; i < model.layers.size(); ++i) {
    cache.k.push_back(Storage::external(spec, {}, "k cache"));
    cache.v.push_back(Storage::external(spec, {}, "v cache"));
    cache.k[i]->place = cache.v[i]->place = backend.compute_place();
    memory.cache += cache.k[i]->bytes + cache.v[i]->bytes;
  }
  for (const std::int64_t tokens : {std::int64_t{1}, std::min(chunk, rows)}) {
    const StepFeeds feeds = make_feeds(tokens);
    const auto plan = plan_only([&] { return record_step(model, options, feeds, cache, rows, true); }, backend, policy_of(options));
    memory.arena = std::max(memory.arena, plan->peak(backend.compute_place()));
  }
  const auto [step, seen, settings, chosen] = sample_specs(model);
  SampleFeeds f;
  for (auto [to, spec] : {std::pair{&f.step, step}, {&f.seen, seen}, {&f.settings, settings}, {&f.chosen, chosen}}) {
    *to = Storage::external(spec, {}, "sampling");
    (*to)->place = backend.compute_place();
  }
  const auto plan = plan_only([&] { return record_sampled_step(model, options, f, cache, rows); }, backend, policy_of(options));
  memory.arena = std::max(memory.arena, plan->peak(backend.compute_place()));
  return memory;
}

Compute auto_compute(const models::Model& model) {
  const Spec& w = model.layers.front().o.weight->spec;
  if (w.format) return Compute::int8;
  return w.dtype != DType::f32 && cpu::isa() == cpu::Isa::avx512 ? Compute::bf16 : Compute::fp32;
}

Session::Session(const models::Model& model, Executor& executor, const SessionOptions& options)
    : model_(model), executor_(executor), options_(options) {
  if (options.lora) {
    lora_ = std::make_unique<nn::LoraSet>(options.lora->resident(executor.backend()));
    options_.lora = lora_.get();
  }
  options_.chunk = chunk_of(options, executor.backend());
  const std::int64_t capacity = capacity_of(model, options);
  cache_ = models::make_kv_cache(model, capacity + std::min(options_.chunk, kMostPadded), options_.kv_type, executor.backend());
  cache_.capacity = capacity;
}

std::size_t Session::cache_bytes() const {
  std::size_t n = 0;
  for (const auto& s : cache_.k) n += 2 * s->bytes;
  return n;
}

// What a step that is on its way reads and writes goes with the session.
Session::~Session() {
  try {
    stop();
  } catch (const std::exception&) {  // what the device reports of a step that nobody waits for
  }
}

void Session::rewind(std::int64_t position) {
  stop();
  CHECK(position >= 0 && position <= position_, "cannot rewind to {} from {}", position, position_);
  position_ = position;
}

Session::Step& Session::step_for(std::int64_t tokens, std::int64_t context, Ends ends) {
  auto& slot = steps_[{tokens, context, ends}];
  if (slot) return *slot;
  auto step = std::make_unique<Step>();
  if (ends != Ends::in_token) step->feeds = make_feeds(tokens);
  step->program = Program::capture(
      [&] {
        return ends == Ends::in_token ? record_sampled_step(model_, options_, sample_, cache_, context)
                                      : record_step(model_, options_, step->feeds, cache_, context, ends == Ends::in_logits);
      },
      executor_, policy_of(options_));
  slot = std::move(step);
  return *slot;
}

// The bucket of a step after which the cache has so many rows.
std::int64_t Session::context_for(std::int64_t rows) const {
  std::int64_t context = kFirstContext;
  while (context < rows) context *= 2;
  return std::min(context, cache_.k[0]->spec.shape[0]);
}

void Session::check_room(std::int64_t tokens) const {
  if (position_ + tokens > cache_.capacity)
    fail(ErrorKind::usage, "the context of {} tokens is full: {} are in it and {} more were given; raise --ctx", cache_.capacity,
         position_, tokens);
}

void Session::start(std::int32_t token, const Sampling& settings, std::span<const std::uint8_t> seen, std::int64_t most) {
  stop();
  CHECK(most > 0 && settings.vocabulary > 0 && std::ssize(seen) <= model_.head->spec.shape[0],
        "session: nothing to choose from");
  Backend& backend = executor_.backend();
  if (!sample_.step) {
    sample_ = make_sample_feeds(model_, backend);
    for (auto& fence : fences_) fence = backend.fence();
  }
  std::int32_t step[kStepFeeds];
  set_step(step, token, static_cast<std::int32_t>(position_), model_.config.sliding_window);
  put(*sample_.step, step, sizeof step, backend);
  put(*sample_.settings, &settings, sizeof settings, backend);
  if (settings.penalty != 1) put(*sample_.seen, seen.data(), seen.size(), backend);
  left_ = most, started_ = position_;
}

// Whether the host may start another one while this one runs.
bool Session::start_step(std::int64_t row) {
  Program& program = step_for(1, context_for(row + 1), Ends::in_token).program;
  program.start();
  fences_[row % 2]->mark();
  started_ = row + 1;
  return executor_.backend().compute_place() != Place{} && program.runs_ahead();
}

std::int32_t Session::next() {
  CHECK(left_ > 0, "session: no token was started");
  check_room(1);
  const bool ahead = started_ > position_ || start_step(position_);
  if (ahead && left_ > 1 && position_ + 1 < cache_.capacity) start_step(position_ + 1);
  fences_[position_ % 2]->wait();
  --left_;
  return sample_.chosen_on_host->values<std::int32_t>()[position_++ % kChosen];
}

void Session::stop() {
  if (left_ == 0) return;
  left_ = 0;
  executor_.finish();
}

std::span<const float> Session::feed(std::span<const std::int32_t> ids) {
  CHECK(!ids.empty(), "nothing to feed");
  const auto count = static_cast<std::int64_t>(ids.size());
  stop();
  check_room(count);
  Step* step = nullptr;
  for (std::int64_t done = 0; done < count;) {
    const std::int64_t n = next_tokens(count - done, options_.chunk), tokens = std::min(options_.chunk, round_up_to_power(n));
    const bool last = done + n == count;
    step = &step_for(tokens, context_for(position_ + tokens), last ? Ends::in_logits : Ends::nowhere);
    const StepFeeds& f = step->feeds;
    for (std::int64_t i = 0; i < tokens; ++i) {
      const bool real = i < n;
      const std::int64_t row = position_ + i;
      numbers_of(f, Feed::ids)[i] = real ? ids[done + i] : 0;
      numbers_of(f, positions)[i] = real ? static_cast<std::int32_t>(row) : 0;
      numbers_of(f, lo)[i] = 0;
      numbers_of(f, hi)[i] = real ? static_cast<std::int32_t>(row) : -1;
      numbers_of(f, window_lo)[i] =
          real ? static_cast<std::int32_t>(std::max<std::int64_t>(0, row + 1 - model_.config.sliding_window)) : 0;
    }
    *numbers_of(f, at) = static_cast<std::int32_t>(position_);
    *numbers_of(f, Feed::last) = static_cast<std::int32_t>(n - 1);
    step->program.run();
    position_ += n;
    done += n;
  }
  return step->program.result(0).values<float>();
}

}  // namespace supersonic::infer
