#include "infer/session.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "backend/cpu/pool.h"
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

// One step over f.tokens tokens, attending the cache's first `context` rows.
Tensors record_step(const models::Model& model, const SessionOptions& options, const StepFeeds& f, const models::KvCache& cache,
                    std::int64_t context, bool want_logits) {
  nn::Recorder recorder;
  recorder.activation = options.compute == Compute::bf16 ? DType::bf16 : DType::f32;
  recorder.lora = options.lora;
  const Tensor all = from_storage(f.numbers);
  auto part = [&](Feed feed) {
    const std::int64_t begin = begin_of(f, feed);
    return slice(all, 0, begin, begin + (feed < Feed::at ? f.tokens : 1));
  };
  const models::Inputs in{part(ids), part(positions), part(lo), part(hi), part(window_lo)};
  if (want_logits) return {models::next_logits(recorder, model, in, cache, part(at), context, part(last))};
  models::hidden(recorder, model, in, cache, part(at), context);
  return {};
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

void Session::rewind(std::int64_t position) {
  CHECK(position >= 0 && position <= position_, "cannot rewind to {} from {}", position, position_);
  position_ = position;
}

Session::Step& Session::step_for(std::int64_t tokens, std::int64_t context, bool want_logits) {
  auto& slot = steps_[{tokens, context, want_logits}];
  if (slot) return *slot;
  auto step = std::make_unique<Step>();
  step->feeds = make_feeds(tokens);
  step->program = Program::capture([&] { return record_step(model_, options_, step->feeds, cache_, context, want_logits); },
                                   executor_, policy_of(options_));
  slot = std::move(step);
  return *slot;
}

std::span<const float> Session::feed(std::span<const std::int32_t> ids) {
  CHECK(!ids.empty(), "nothing to feed");
  const auto count = static_cast<std::int64_t>(ids.size());
  if (position_ + count > cache_.capacity)
    fail(ErrorKind::usage, "the context of {} tokens is full: {} are in it and {} more were given; raise --ctx", cache_.capacity,
         position_, count);
  Step* step = nullptr;
  for (std::int64_t done = 0; done < count;) {
    const std::int64_t n = next_tokens(count - done, options_.chunk), tokens = std::min(options_.chunk, round_up_to_power(n));
    std::int64_t context = kFirstContext;
    while (context < position_ + tokens) context *= 2;
    context = std::min(context, cache_.k[0]->spec.shape[0]);
    const bool last = done + n == count;
    step = &step_for(tokens, context, last);
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
