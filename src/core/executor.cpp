#include "core/executor.h"

#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <unordered_map>

#include "core/planes.h"
#include "core/profile.h"

namespace supersonic {
namespace {

bool flag(const char* name) {
  const char* v = std::getenv(name);
  return v && *v && *v != '0';
}
Policy effective(Policy policy) {
  if (eager_mode()) policy.fuse = policy.prepare = policy.reuse = false;
  return policy;
}

// The format of a step's input where it is a quantized matrix.
const Format* format_of(const Step& s, std::size_t input) {
  return input < s.problem.in.size() ? s.problem.in[input].spec.format : nullptr;
}

void run_copy(Backend& backend, const Step& s, const Pointers& p, Lane& lane) {
  const Spec& spec = s.problem.in[0].spec;
  const Place from = s.in[0].place, to = s.out[0].place;
  if (!spec.format) return backend.copy(p.out[0], to, p.in[0], from, s.out[0].bytes, lane);
  const Planes target = planes_in(p.out[0], spec);
  for (int plane = 0; plane < spec.format->planes; ++plane) {
    backend.copy(const_cast<void*>(target.data[plane]), to, p.planes[0]->data[plane], from,
                 plane_bytes(spec, plane), lane);
  }
}

// SUPERSONIC_SYNC: what a device reports late is put down to the step that caused it.
void sync_after(Backend& backend, const Step& s) {
  try {
    backend.sync();
  } catch (const Error& e) {
    throw Error(fmt::format("{}: {}", s.label, e.what()), e.kind());
  }
}

}  // namespace

bool eager_mode() {
  static const bool on = flag("SUPERSONIC_EAGER");
  return on;
}

std::byte* Executor::base(Place place, std::size_t bytes) {
  for (auto& e : arenas_) {
    if (!(e.place == place)) continue;
    if (bytes > e.bytes) e.arena->grow(e.bytes = bytes);
    return static_cast<std::byte*>(e.arena->base());
  }
  arenas_.push_back({place, backend_.arena(place), bytes});
  arenas_.back().arena->grow(bytes);
  return static_cast<std::byte*>(arenas_.back().arena->base());
}

std::size_t Executor::arena_bytes(Place place) const {
  for (const auto& e : arenas_)
    if (e.place == place) return e.bytes;
  return 0;
}

void Executor::finish() {
  if (!started_) return;
  started_ = false;
  backend_.sync();
}

BoundPlan::BoundPlan(std::shared_ptr<const Plan> plan, Executor& executor) : plan_(std::move(plan)), executor_(&executor) {
  static const bool sync_each = flag("SUPERSONIC_SYNC"), verify = flag("SUPERSONIC_VERIFY");
  sync_each_ = sync_each || profile::enabled();
  if (verify) plan_->verify();
  executor.backend().reserve_events(plan_->events());
  auto address = [&](const Location& at) -> void* {
    if (at.kind == Location::none) return nullptr;
    if (at.kind == Location::arena) return executor.base(at.place, plan_->peak(at.place)) + at.offset;
    return const_cast<std::byte*>(static_cast<const std::byte*>(plan_->storages()[at.index]->planes.data[0])) + at.offset;
  };
  pointers_.resize(plan_->steps().size());
  one_lane_ = std::all_of(plan_->steps().begin(), plan_->steps().end(), [](const Step& s) { return s.lane == LaneKind::compute; });
  std::size_t copied = 0;
  for (const Step& s : plan_->steps())
    for (std::size_t k = 0; k < s.in.size(); ++k) copied += s.in[k].kind == Location::arena && format_of(s, k);
  planes_.reserve(copied);  // pointers into it stay
  for (std::size_t i = 0; i < pointers_.size(); ++i) {
    const Step& s = plan_->steps()[i];
    for (std::size_t k = 0; k < s.in.size(); ++k) {
      pointers_[i].in[k] = address(s.in[k]);
      if (s.in[k].kind == Location::storage) {
        pointers_[i].planes[k] = &plan_->storages()[s.in[k].index]->planes;
      } else if (format_of(s, k)) {
        planes_.push_back(planes_in(pointers_[i].in[k], s.problem.in[k].spec));
        pointers_[i].planes[k] = &planes_.back();
      }
    }
    for (std::size_t o = 0; o < s.out.size(); ++o) pointers_[i].out[o] = address(s.out[o]);
    pointers_[i].workspace = address(s.workspace);
  }
  if (profile::enabled())
    for (const Step& s : plan_->steps()) profile_rows_.push_back(profile::row_of(s));
}

// Steps on several lanes are ordered among themselves alone, and staging holds one run's inputs: such a run has the device to itself.
bool BoundPlan::runs_ahead() const { return replay_ ? replay_->runs_ahead() : one_lane_; }

void BoundPlan::start() {
  // The first run loads what kernels load when they are first used; a plan that runs once is not worth a recording.
  constexpr int kCaptureAt = 1;
  if (!sync_each_ && runs_ <= kCaptureAt && runs_++ == kCaptureAt)
    replay_ = executor_->backend().capture(*plan_, [this] { enqueue(); });
  const bool ahead = runs_ahead();
  if (!ahead) executor_->finish();
  executor_->started_ = true;
  replay_ ? replay_->start() : enqueue();
  if (ahead) return;
  executor_->finish();
  if (replay_) replay_->finish();
}

void BoundPlan::run() {
  start();
  executor_->finish();
}

void BoundPlan::enqueue() {
  Backend& backend = executor_->backend();
  const auto steps = plan_->steps();
  for (std::size_t i = 0; i < steps.size(); ++i) {
    const Step& s = steps[i];
    Lane& lane = backend.lane(s.lane);
    for (int w : s.waits) backend.wait(lane, w);
    const Pointers& p = pointers_[i];
    const double start = profile_rows_.empty() ? 0 : profile::now();
    if (s.copy) {
      run_copy(backend, s, p, lane);
    } else if (s.form) {
      s.form->make(s.problem.in[0], p.in[0], p.out[0], lane);
    } else {
      s.kernel->launch(s.problem, p, lane);
    }
    if (s.signal >= 0) backend.signal(lane, s.signal);
    if (sync_each_) sync_after(backend, s);
    if (!profile_rows_.empty()) profile::add(profile_rows_[i], profile::now() - start);
  }
}

namespace {

struct Captured {
  std::vector<Ref<Node>> nodes;
  Tensors roots;
  std::vector<StorageRef> results;
};

Captured record_program(const std::function<Tensors()>& fn, Backend& backend) {
  TapeScope scope;
  Captured c;
  c.roots = fn();
  for (const auto& t : c.roots) c.results.push_back(backend.result_storage(t.spec(), "result"));
  c.nodes = std::move(scope.tape().nodes());
  return c;
}

}  // namespace

Program Program::capture(const std::function<Tensors()>& fn, Executor& executor, const Policy& policy) {
  const Captured c = record_program(fn, executor.backend());
  Program program;
  program.results_ = c.results;
  program.bound_ = BoundPlan(Plan::build(c.nodes, c.roots, c.results, executor.backend(), effective(policy)), executor);
  return program;
}

std::shared_ptr<const Plan> plan_only(const std::function<Tensors()>& fn, Backend& backend, const Policy& policy) {
  const Captured c = record_program(fn, backend);
  return Plan::build(c.nodes, c.roots, c.results, backend, effective(policy));
}

// --- eval: the plan cache -------------------------------------------------------------------------------------------------

namespace {

// Structural identity of a recorded stretch: operations, attributes, shapes, relative inputs, leaf specs, results.
struct Signature {
  std::vector<std::uint64_t> words;
  void add(std::uint64_t w) { words.push_back(w); }
  void add(const Spec& s) {
    add(static_cast<std::uint64_t>(s.dtype) << 8 | static_cast<std::uint64_t>(s.shape.rank));
    add(reinterpret_cast<std::uintptr_t>(s.format));
    for (int i = 0; i < s.shape.rank; ++i) add(static_cast<std::uint64_t>(s.shape[i]));
  }
  bool operator==(const Signature&) const = default;
};
struct SignatureHash {
  std::size_t operator()(const Signature& s) const {
    std::uint64_t h = 0xcbf29ce484222325ull;
    for (auto w : s.words) h = (h ^ w) * 0x9e3779b97f4a7c15ull + (h >> 31);
    return h;
  }
};

struct CacheEntry {
  std::shared_ptr<const Plan> plan;
  std::vector<int> leaf_of_storage;  // plan storage index -> leaf number; results follow the leaves
};

struct Recorded {
  std::vector<Ref<Node>> nodes;
  Tensors roots;
  std::vector<StorageRef> leaves;
  std::vector<std::pair<Ref<Node>, StorageRef>> aliases;  // named views of storages
  Signature signature;
};

// Another storage over the bytes of a dense view of a storage; empty where the node is something else. A view stays one after
// the evaluation: reads and effects through it reach the storage.
StorageRef alias_of_storage(const Node& n) {
  std::vector<const Node*> views;
  const Node* at = &n;
  int output = 0;
  while (!at->storage[output] && at->op->traits.view) {
    views.push_back(at);
    output = at->inputs[0].output();
    at = views.back()->inputs[0].node();
  }
  const StorageRef base = at->storage[output];
  if (views.empty() || !base || base->spec.format) return {};
  Operand operand{base->spec, contiguous_strides(base->spec.shape), true, nullptr};
  ViewLayout layout{0, operand.strides};
  for (std::size_t i = views.size(); i-- > 0;) {
    ViewLayout to;
    if (!views[i]->op->layout(views[i]->attrs, operand.spec, layout, views[i]->outputs[0], to)) return {};
    operand = {views[i]->outputs[0], to.strides, true, nullptr};
    layout = to;
  }
  if (!operand.contiguous()) return {};
  Planes planes;
  planes.data[0] = base->as<std::byte>() + static_cast<std::size_t>(layout.offset) * size_of(base->spec.dtype);
  StorageRef alias = Storage::external(n.outputs[0], planes, base->name, [base] {});
  alias->place = base->place;
  return alias;
}

Recorded collect(Tape& tape) {
  Recorded r;
  r.nodes = std::move(tape.nodes());
  tape.nodes().clear();
  std::unordered_map<const Node*, int> inner;  // references that come from the stretch itself
  for (const auto& n : r.nodes) {
    ++inner[n.get()];
    for (int i = 0; i < n->num_inputs; ++i) ++inner[n->inputs[i].node()];
  }
  std::unordered_map<const Node*, std::uint64_t> number;
  std::unordered_map<const Storage*, std::uint64_t> leaf;
  for (const auto& n : r.nodes) {
    r.signature.add(reinterpret_cast<std::uintptr_t>(n->op));
    r.signature.add(std::uint64_t{n->region} << 1 | static_cast<std::uint64_t>(n->backward));
    for (std::size_t w = 0; w < kMaxAttrBytes / 8; ++w) {
      std::uint64_t word;
      std::memcpy(&word, n->attrs.bytes + w * 8, 8);
      r.signature.add(word);
    }
    for (int i = 0; i < n->num_inputs; ++i) {
      const Tensor& t = n->inputs[i];
      if (const auto& s = t.node()->storage[t.output()]) {
        auto [it, fresh] = leaf.try_emplace(s.get(), leaf.size());
        if (fresh) r.leaves.push_back(s);
        r.signature.add(it->second << 8 | 1);
        r.signature.add(s->spec);
        r.signature.add(std::uint64_t{s->place.kind} << 8 | s->place.index);
      } else {
        const auto it = number.find(t.node());
        CHECK(it != number.end(), "{}: input {} ({}, recorded at {}:{}) was not kept by the evaluation that ran it: hold its "
              "handle, or record and read it in one stretch", n->op->name, i, t.node()->op->name, t.node()->where.file_name(),
              t.node()->where.line());
        r.signature.add(it->second << 8 | static_cast<std::uint64_t>(t.output()) << 1);
      }
    }
    number[n.get()] = number.size();
    for (int o = 0; o < n->num_outputs; ++o) r.signature.add(n->outputs[o]);
    const bool named = n->refs > inner[n.get()];
    r.signature.add(named);
    if (!named || n->op->traits.effect) continue;
    if (StorageRef alias = alias_of_storage(*n)) {
      r.aliases.emplace_back(n, std::move(alias));
    } else {
      for (int o = 0; o < n->num_outputs; ++o) r.roots.emplace_back(n, o);
    }
  }
  return r;
}

thread_local std::unordered_map<Signature, CacheEntry, SignatureHash>* plan_cache = nullptr;
thread_local PlanCacheStats cache_stats;

// The same plan over other storages.
std::shared_ptr<const Plan> rebound(const CacheEntry& entry, const std::vector<StorageRef>& operands) {
  return entry.plan->with_storages([&](int i) { return operands[entry.leaf_of_storage[i]]; });
}

}  // namespace

PlanCacheStats plan_cache_stats() { return cache_stats; }

void eval(Executor& executor, const Policy& requested) {
  Recorded r = collect(Tape::current());
  if (r.nodes.empty()) return;
  const Policy policy = effective(requested);
  r.signature.add(policy.key());
  r.signature.add(reinterpret_cast<std::uintptr_t>(&executor.backend()));
  std::vector<StorageRef> operands = r.leaves;
  std::vector<StorageRef> results;
  for (const auto& t : r.roots) {
    results.push_back(Storage::make(t.spec(), "result"));
    operands.push_back(results.back());
  }
  r.signature.add(std::uint64_t{r.leaves.size()} << 32 | results.size());
  if (!plan_cache) plan_cache = new std::unordered_map<Signature, CacheEntry, SignatureHash>;
  auto it = plan_cache->find(r.signature);
  std::shared_ptr<const Plan> plan;
  if (it != plan_cache->end()) {
    ++cache_stats.hits;
    plan = rebound(it->second, operands);
  } else {
    ++cache_stats.misses;
    plan = Plan::build(r.nodes, r.roots, results, executor.backend(), policy);
    CacheEntry entry;
    for (const auto& s : plan->storages()) {
      const auto at = std::find(operands.begin(), operands.end(), s) - operands.begin();
      CHECK(at < static_cast<std::ptrdiff_t>(operands.size()), "eval: the plan reads '{}', which no recorded node names", s->name);
      entry.leaf_of_storage.push_back(static_cast<int>(at));
    }
    entry.plan = plan->with_storages([](int) { return StorageRef(); });  // a cached plan keeps no memory alive
    if (plan_cache->size() >= 256) plan_cache->clear();
    (*plan_cache)[std::move(r.signature)] = std::move(entry);
  }
  BoundPlan(plan, executor).run();
  for (auto& [node, alias] : r.aliases) node->storage[0] = std::move(alias);
  for (std::size_t i = 0; i < r.roots.size(); ++i) r.roots[i].node()->storage[r.roots[i].output()] = results[i];
}

void eval() {
  static Executor executor(cpu_backend());
  eval(executor);
}

Storage& materialise(const Tensor& t) {
  if (!t.node()->storage[t.output()]) eval();
  CHECK(t.node()->storage[t.output()], "{}: was recorded on another thread or inside a capture", t.node()->op->name);
  return *t.node()->storage[t.output()];
}

}  // namespace supersonic
