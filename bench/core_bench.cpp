// What planning costs: nanoseconds to record a node, milliseconds to plan a training step of a few thousand nodes, and the time
// of a plan-cache hit. Prints one line each; the goals are ~100 ns a node and a few ms a plan.
#include <chrono>
#include <cstdio>

#include "core/autograd.h"
#include "core/executor.h"
#include "core/tape.h"
#include "ops/accumulate.h"
#include "ops/gemm.h"
#include "ops/linear_xent.h"
#include "ops/map/transcendental.h"
#include "ops/rms_norm.h"

namespace {

using namespace supersonic;

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

template <class F>
double best_of(int times, F&& f) {
  double best = 1e9;
  for (int i = 0; i < times; ++i) {
    const double start = seconds();
    f();
    best = std::min(best, seconds() - start);
  }
  return best;
}

constexpr std::int64_t kTokens = 64, kDim = 64;

// A deep network with LoRA on each of seven products, without data: what is planned is its shape.
Tensors training_step(const StorageRef& w, const StorageRef& norm, const StorageRef& a, const StorageRef& b, const StorageRef& labels,
                      const StorageRef& one, int depth) {
  Tensor x = from_storage(w);
  Tensors wrt;
  std::vector<StorageRef> grads;
  auto lora = [&](const Tensor& h) {
    // Storages of their own, so that gradients are told apart.
    const Tensor down = from_storage(Storage::external(a->spec, a->planes, "a")), up = from_storage(Storage::external(b->spec, b->planes, "b"));
    wrt.push_back(down), wrt.push_back(up);
    grads.push_back(a), grads.push_back(b);
    return add(linear(h, from_storage(w)), linear(linear(h, down), up), Where::current());
  };
  for (int l = 0; l < depth; ++l) {
    Region region;
    const Tensor h = rms_norm(x, from_storage(norm), 1e-5f);
    x = add(x, lora(add(lora(h), mul(lora(h), sigmoid(lora(h))), Where::current())), Where::current());
    const Tensor u = rms_norm(x, from_storage(norm), 1e-5f);
    x = add(x, lora(swiglu(lora(u), lora(u))), Where::current());
  }
  const Tensor loss = linear_xent(x, from_storage(w), from_storage(labels), from_storage(one));
  backward(loss, wrt, [&](int i, const Tensor& g) { accumulate(from_storage(grads[i]), g); });
  return {loss};
}

}  // namespace

int main() {
  auto f32 = [](Shape s) { return Storage::make({s, DType::f32, nullptr}); };
  const StorageRef w = f32({kTokens, kDim}), norm = f32({kDim}), a = f32({4, kDim}), b = f32({kDim, 4}), one = f32({1});
  const StorageRef labels = Storage::make({Shape{kTokens}, DType::i32, nullptr});

  constexpr int kNodes = 20000;
  const double record_time = best_of(9, [&] {
    TapeScope scope;
    Tensor x = from_storage(w);
    const Tensor y = x;
    for (int i = 0; i < kNodes; ++i) x = record1(Add{}, {x, y}, Where::current());
  });
  std::printf("record (and free)   %8.1f ns a node\n", record_time / kNodes * 1e9);

  std::size_t nodes = 0;
  auto step = [&] {
    Tensors result = training_step(w, norm, a, b, labels, one, 32);
    nodes = Tape::current().nodes().size();
    return result;
  };
  const double record_step = best_of(5, [&] {
    TapeScope scope;
    step();
  });
  std::printf("record a step       %8.2f ms for %zu nodes, gradients included\n", record_step * 1e3, nodes);
  for (const int regions : {0, 32}) {
    Policy policy;
    policy.checkpoint_regions = regions;
    std::size_t steps = 0;
    const double plan_time = best_of(5, [&] { steps = plan_only(step, cpu_backend(), policy)->steps().size(); }) - record_step;
    std::printf("plan, %2d regions    %8.2f ms for %zu steps\n", regions, plan_time * 1e3, steps);
  }
  const auto plan = plan_only(step, cpu_backend(), {});
  std::printf("verify              %8.2f ms\n", best_of(5, [&] { plan->verify(); }) * 1e3);

  auto stretch = [&] {
    Tensor x = from_storage(w);
    for (int i = 0; i < 64; ++i) x = permute(x, {0, 1});
    const Tensor last = sum(slice(x, 0, 0, 1), 1);
    eval();
  };
  stretch();
  std::printf("cached eval         %8.2f us for 66 nodes\n", best_of(50, stretch) * 1e6);
}
