#include "core/autograd.h"

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "core/leaf.h"
#include "core/primitives.h"
#include "core/tape.h"

namespace supersonic {
namespace {

thread_local int backward_depth = 0;

struct BackwardScope {
  BackwardScope() { ++backward_depth; }
  ~BackwardScope() { --backward_depth; }
};

// What a gradient belongs to: an output of a node, or a storage, however many leaves name it.
using Key = std::pair<const void*, int>;
struct KeyHash {
  std::size_t operator()(const Key& k) const { return std::hash<const void*>()(k.first) * 4 + static_cast<std::size_t>(k.second); }
};
Key key_of(const Tensor& t) {
  const Node* n = t.node();
  if (n->op == &op<Leaf>() && n->storage[0]) return {n->storage[0].get(), 0};
  return {n, t.output()};
}

// The nodes between the outputs and the differentiated values, in ascending sequence; `stops` are not looked behind.
std::vector<Ref<Node>> reachable(std::span<const Tensor> outputs, const std::unordered_map<Key, int, KeyHash>& stops) {
  std::vector<Ref<Node>> found;
  std::unordered_set<Node*> seen;
  std::vector<Tensor> work(outputs.begin(), outputs.end());
  while (!work.empty()) {
    const Tensor t = work.back();
    work.pop_back();
    Node* n = t.node();
    if (stops.count(key_of(t)) || !seen.insert(n).second) continue;
    found.emplace_back(n);
    for (int i = 0; i < n->num_inputs; ++i) work.push_back(n->inputs[i]);
  }
  std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a->seq < b->seq; });
  return found;
}

struct Sweep {
  std::unordered_map<Key, std::vector<int>, KeyHash> wrt = {};  // value -> indices, ascending
  std::vector<Key> order = {};                                  // keys of wrt, as asked
  std::unordered_map<Key, int, KeyHash> uses = {};  // uses of a wrt value not yet differentiated
  std::unordered_map<Key, Tensor, KeyHash> grads = {};
  std::unordered_set<const void*> needed = {};
  const std::function<void(int, const Tensor&)>& sink;
  Where where;
  bool in_parts = false;  // the sink adds up
  std::vector<std::pair<Key, Tensor>> parts = {};  // of the node that is being differentiated

  bool needs(const Tensor& t) const { return wrt.count(key_of(t)) || needed.count(t.node()); }

  void accumulate(const Tensor& t, const Tensor& grad) {
    CHECK(grad.shape() == t.shape(), "gradient of shape {} for a value of shape {}", to_string(grad.shape()),
          to_string(t.shape()));
    const Key key = key_of(t);
    if (in_parts && wrt.count(key) && !needed.count(key.first)) return void(parts.emplace_back(key, grad));
    Tensor& slot = grads[key];
    slot = slot ? add(slot, grad, where) : grad;
  }

  void run(std::vector<Ref<Node>> nodes) {
    for (const auto& n : nodes) {
      bool any = false;
      for (int i = 0; i < n->num_inputs; ++i) {
        if (!needs(n->inputs[i])) continue;
        any = true;
        if (wrt.count(key_of(n->inputs[i]))) ++uses[key_of(n->inputs[i])];
      }
      if (any) needed.insert(n.get());
    }
    for (std::size_t i = nodes.size(); i-- > 0;) {
      if (needed.count(nodes[i].get())) differentiate_node(nodes[i].get());
    }
    for (const Key& key : order) finish(key);
  }

  void differentiate_node(Node* n) {
    Tensors dy(n->num_outputs), out;
    bool any = false;
    for (int o = 0; o < n->num_outputs; ++o) {
      out.emplace_back(Ref<Node>(n), o);
      const Key key = key_of(out.back());
      if (auto it = grads.find(key); it != grads.end()) {
        dy[o] = it->second;
        any = true;
        if (!wrt.count(key)) grads.erase(it);
      }
    }
    std::vector<bool> need(n->num_inputs);
    for (int i = 0; i < n->num_inputs; ++i) need[i] = needs(n->inputs[i]);
    const Args in(n->inputs, n->num_inputs);
    if (any) {
      Tape& tape = Tape::current();
      const auto outer = tape.region();
      tape.set_region(n->region);
      const Grads g = n->op->backward ? n->op->backward(n->attrs, BackwardArgs{in, out, dy, need})
                                      : differentiate(*n->op, n->attrs, in, dy, need);
      CHECK(g.size() <= in.size(), "{}: backward returned {} gradients for {} inputs", n->op->name, g.size(), in.size());
      for (std::size_t i = 0; i < g.size(); ++i)
        if (need[i] && g[i]) accumulate(in[i], g[i]);
      tape.set_region(outer);
      for (const auto& [key, part] : parts)
        for (int index : wrt.at(key)) sink(index, part);
      parts.clear();
    }
    for (const auto& t : in) {
      auto it = uses.find(key_of(t));
      if (it != uses.end() && needs(t) && --it->second == 0) finish(key_of(t));
    }
  }

  void finish(const Key& key) {
    auto it = grads.find(key);
    if (it == grads.end() || !it->second) return;
    const Tensor g = it->second;
    if (!needed.count(key.first)) grads.erase(it);  // an inner value's gradient is still swept further
    else it->second = g;
    if (!reported.insert(key).second) return;
    for (int index : wrt.at(key)) sink(index, g);
  }
  std::unordered_set<Key, KeyHash> reported = {};
};

void sweep(std::span<const Tensor> outputs, std::span<const Tensor> cotangents, std::span<const Tensor> wrt,
           const std::unordered_map<Key, int, KeyHash>& stops, const std::function<void(int, const Tensor&)>& sink,
           Where where, bool in_parts = false) {
  BackwardScope scope;
  Sweep s{.sink = sink, .where = where, .in_parts = in_parts};
  for (std::size_t i = 0; i < wrt.size(); ++i) {
    if (!wrt[i]) continue;
    auto& indices = s.wrt[key_of(wrt[i])];
    if (indices.empty()) s.order.push_back(key_of(wrt[i]));
    indices.push_back(static_cast<int>(i));
  }
  auto nodes = reachable(outputs, stops);
  for (std::size_t i = 0; i < outputs.size(); ++i)
    if (cotangents[i]) s.accumulate(outputs[i], cotangents[i]);
  s.run(std::move(nodes));
}

}  // namespace

bool in_backward() { return backward_depth > 0; }

Tensors gradients(std::span<const Tensor> outputs, std::span<const Tensor> cotangents, std::span<const Tensor> wrt,
                  Where where) {
  Tensors result(wrt.size());
  sweep(outputs, cotangents, wrt, {}, [&](int i, const Tensor& g) { result[i] = g; }, where);
  return result;
}

Tensors gradients(const Tensor& loss, std::span<const Tensor> wrt, Where where) {
  CHECK(loss.numel() == 1, "gradients: the loss must have one element, got {}", to_string(loss.shape()));
  const Tensor one = fill(loss.shape(), loss.dtype(), 1.0, where);
  return gradients(std::span(&loss, 1), std::span(&one, 1), wrt, where);
}

void backward(const Tensor& loss, std::span<const Tensor> wrt, const std::function<void(int, const Tensor&)>& sink,
              Where where) {
  CHECK(loss.numel() == 1, "backward: the loss must have one element, got {}", to_string(loss.shape()));
  const Tensor one = fill(loss.shape(), loss.dtype(), 1.0, where);
  sweep(std::span(&loss, 1), std::span(&one, 1), wrt, {}, sink, where, true);
}

Grads differentiate(const Op& op, const Attrs& attrs, Args in, Args dy, const std::vector<bool>& need) {
  CHECK(op.define, "{}: has neither a backward nor a definition to differentiate", op.name);
  // Behind identities, so that inputs count as independent even where one was computed from another.
  Tensors inputs;
  std::unordered_map<Key, int, KeyHash> stops;
  for (std::size_t i = 0; i < in.size(); ++i) {
    inputs.push_back(identity(in[i]));
    stops[key_of(inputs.back())] = static_cast<int>(i);
  }
  Tensors wrt(in.size());
  for (std::size_t i = 0; i < in.size(); ++i)
    if (need[i]) wrt[i] = inputs[i];
  const Tensors out = op.define(attrs, inputs);
  Grads result(in.size());
  sweep(out, dy, wrt, stops, [&](int i, const Tensor& g) { result[i] = g; }, Where::current());
  return result;
}

}  // namespace supersonic
