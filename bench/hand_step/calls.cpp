#include "hand_step/calls.h"

#include <algorithm>

#include "core/graph.h"
#include "core/plan.h"

namespace supersonic::bench {

Value value_of(const StorageRef& s) {
  return {s->spec, s->as<void>(), s->spec.format ? &s->planes : nullptr};
}

Mirror::Mirror(Backend& backend, const Spec& spec, const char* name)
    : host(backend.result_storage(spec, name)),
      here(backend.compute_place() == Place{} ? host : backend.storage(spec, name)) {}

Calls::Call Calls::call(const std::vector<Value>& in, const std::vector<Value>& out) const {
  Call c;
  c.problem.compute = compute_;
  c.problem.threads = backend_.threads();
  for (const Value& v : in) {
    c.pointers.in[c.problem.in.size()] = v.data;
    c.pointers.planes[c.problem.in.size()] = v.planes;
    c.problem.in.push_back({v.spec, contiguous_strides(v.spec.shape), true, nullptr});
  }
  for (const Value& v : out) {
    c.pointers.out[c.problem.out.size()] = v.live ? v.data : nullptr;
    c.problem.out.push_back({v.spec, contiguous_strides(v.spec.shape), v.live, nullptr});
  }
  return c;
}

void Calls::add(const Op& op, const Attrs& attrs, const std::vector<Value>& in,
                const std::vector<Value>& out, Work& work) {
  Call c = call(in, out);
  c.problem.op = &op;
  c.problem.attrs = attrs;
  std::string why;
  c.kernel = find_kernel(backend_, c.problem, &why);
  CHECK(c.kernel, "hand_step: no kernel of backend '{}' takes {}{}", backend_.name(), op.name, why);
  if (c.kernel->workspace) work.bytes = std::max(work.bytes, c.kernel->workspace(c.problem));
  c.pointers.workspace = work.at;
  calls_.push_back(std::move(c));
}

void Calls::add(const Map& map, const std::vector<Value>& in, const std::vector<Value>& out) {
  Call c = call(in, out);
  c.kernel = map.kernel;
  c.problem.chain = map.program;
  calls_.push_back(std::move(c));
}

void Calls::copy(const StorageRef& to, const StorageRef& from) {
  if (to == from) return;
  Call c;
  c.pointers.in[0] = from->as<void>();
  c.pointers.out[0] = to->as<void>();
  c.from = from->place;
  c.to = to->place;
  c.bytes = from->bytes;
  calls_.push_back(std::move(c));
}

void Calls::enqueue() {
  Lane& lane = backend_.lane(LaneKind::compute);
  for (const Call& c : calls_) {
    if (c.kernel)
      c.kernel->launch(c.problem, c.pointers, lane);
    else
      backend_.copy(c.pointers.out[0], c.to, c.pointers.in[0], c.from, c.bytes, lane);
  }
}

void Calls::run() {
  constexpr int kRecordAt = 1;  // the first run loads what is loaded when it is first used
  if (runs_ <= kRecordAt && runs_++ == kRecordAt)
    replay_ = backend_.capture(Plan{}, [this] { enqueue(); });
  replay_ ? replay_->start() : enqueue();
  backend_.sync();
  if (replay_) replay_->finish();
}

}  // namespace supersonic::bench
