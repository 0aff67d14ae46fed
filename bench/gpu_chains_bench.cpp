// The GPU's elementwise chains as a training step of an 8B model runs them, 4,096 tokens in bf16:
// bytes that must move at the least over the time of a launch, against a copy within the device's
// memory; by the catalogue and, from addresses that it does not take, by the interpreter.
//   gpu_chains_bench [DEVICE]        DEVICE: cuda (default), cuda:1
#include "gpu_bench.h"
#include "ops/map/transcendental.h"

namespace supersonic {
namespace {

struct Instr {
  const Op& op;
  std::vector<std::int16_t> src;
};

ChainProgram program(int loads, const std::vector<Instr>& instrs,
                     std::vector<std::int16_t> stores) {
  ChainProgram c;
  c.loads = loads;
  for (const Instr& i : instrs) {
    ChainInstr instr;
    instr.op = &i.op;
    if (&i.op == &op<Scale>()) instr.attrs = Attrs::of(Scale{0.5});
    std::copy(i.src.begin(), i.src.end(), instr.src);
    c.instrs.push_back(instr);
  }
  c.stores = std::move(stores);
  return c;
}

void time_chain(const Bench& b, const char* name, const Spec& spec, const ChainProgram& chain) {
  constexpr std::int64_t kShift = 16;  // bytes: what the catalogue takes lies at multiples of 32
  const Spec longer{Shape{spec.numel() + 64}, spec.dtype, nullptr};
  const StorageRef numbers = b.random(longer);
  std::vector<StorageRef> storages;
  Problem p;
  p.chain = &chain;
  for (int v = 0; v < chain.loads; ++v) {
    storages.push_back(b.gpu.storage(longer, "operand"));
    const Place place = b.gpu.compute_place();
    b.gpu.copy(storages.back()->as<void>(), place, numbers->as<void>(), place, numbers->bytes,
               b.gpu.lane(LaneKind::compute));
    p.in.push_back({spec, contiguous_strides(spec.shape), true, nullptr});
  }
  for (std::size_t s = 0; s < chain.stores.size(); ++s) {
    storages.push_back(b.gpu.storage(longer, "result"));
    p.out.push_back({spec, contiguous_strides(spec.shape), true, nullptr});
  }
  const double bytes = static_cast<double>(storages.size()) * static_cast<double>(bytes_of(spec));
  const Kernel* k = b.gpu.chain_kernel(chain);
  for (const bool shifted : {false, true}) {
    Pointers ptr;
    for (std::size_t i = 0; i < storages.size(); ++i) {
      void* at = storages[i]->as<std::byte>() + (shifted ? kShift : 0);
      (i < p.in.size() ? ptr.in[i] : ptr.out[i - p.in.size()]) = at;
    }
    const double s = b.seconds([&] { k->launch(p, ptr, b.gpu.lane(LaneKind::compute)); });
    b.print(name, to_string(spec) + (shifted ? " interpreted" : ""), bytes, s);
  }
}

int run(const char* device) {
  Bench b{device_backend(device)};
  measure_copy(b);
  const Spec hidden{Shape{4096, 14336}, DType::bf16, nullptr},
      model{Shape{4096, 4096}, DType::bf16, nullptr}, thin{Shape{4096, 16}, DType::bf16, nullptr},
      wide{Shape{4096, 14336}, DType::f32, nullptr};
  const Op &mul = op<Mul>(), &silu = op<Silu>(), &silu_grad = op<SiluGrad>(),
           &swiglu = op<Swiglu>();
  time_chain(b, "swiglu", hidden, program(2, {{swiglu, {0, 1}}}, {2}));
  time_chain(b, "swiglu", wide, program(2, {{swiglu, {0, 1}}}, {2}));
  time_chain(b, "its gradient", hidden,
             program(3, {{mul, {0, 1}}, {silu_grad, {2, 3}}, {silu, {2}}, {mul, {0, 5}}}, {4, 6}));
  time_chain(
      b, "and itself", hidden,
      program(3, {{swiglu, {0, 1}}, {mul, {2, 1}}, {silu_grad, {0, 4}}, {silu, {0}}, {mul, {2, 6}}},
              {3, 5, 7}));
  time_chain(b, "add", model, program(2, {{op<Add>(), {0, 1}}}, {2}));
  time_chain(b, "add", hidden, program(2, {{op<Add>(), {0, 1}}}, {2}));
  time_chain(b, "scale", thin, program(1, {{op<Scale>(), {0}}}, {1}));
  return 0;
}

}  // namespace
}  // namespace supersonic

int main(int argc, char** argv) {
  try {
    return supersonic::run(argc > 1 ? argv[1] : "cuda");
  } catch (const std::exception& e) {
    fmt::print(stderr, "gpu_chains_bench: {}\n", e.what());
    return 1;
  }
}
