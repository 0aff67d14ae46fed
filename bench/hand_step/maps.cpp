#include "hand_step/maps.h"

#include "backend/cpu/cpu_backend.h"
#include "hand_step/elementwise.h"
#include "ops/map/arithmetic.h"
#include "ops/map/transcendental.h"

namespace supersonic::bench {
namespace {

template <class M>
ChainInstr instr(std::int16_t a, std::int16_t b = -1) {
  return {&op<M>(), Attrs::of(M{}), {a, b, -1}};
}

// Values are numbered loads first, then instructions.
const ChainProgram kAdd{2, {instr<Add>(0, 1)}, {2}};
const ChainProgram kSwiglu{2, {instr<Swiglu>(0, 1)}, {2}};
const ChainProgram kSwigluBackward{3,
                                   {instr<Swiglu>(0, 1), instr<Mul>(2, 1), instr<SiluGrad>(0, 4),
                                    instr<Silu>(0), instr<Mul>(2, 6)},
                                   {3, 5, 7}};

const Kernel kCpuAdd{.name = "hand.add",
                     .launch = [](const Problem& p, const Pointers& ptr, Lane& lane) {
                       const Spec& y = p.out[0].spec;
                       cpu::elementwise_kernels().add(cpu::pool_of(lane), ptr.in[0], ptr.in[1],
                                                      ptr.out[0], y.dtype, y.numel());
                     }};
const Kernel kCpuSwiglu{
    .name = "hand.swiglu", .launch = [](const Problem& p, const Pointers& ptr, Lane& lane) {
      const Spec& y = p.out[0].spec;
      cpu::elementwise_kernels().swiglu(cpu::pool_of(lane), ptr.in[0], ptr.in[1], ptr.out[0],
                                        y.dtype, y.numel());
    }};
const Kernel kCpuSwigluBackward{.name = "hand.swiglu_backward",
                                .launch = [](const Problem& p, const Pointers& ptr, Lane& lane) {
                                  const Spec& y = p.out[0].spec;
                                  cpu::elementwise_kernels().swiglu_backward(
                                      cpu::pool_of(lane), ptr.in[0], ptr.in[1], ptr.in[2],
                                      ptr.out[0], ptr.out[1], ptr.out[2], y.dtype, y.numel());
                                }};

}  // namespace

Maps maps_of(Backend& backend) {
  if (&backend == &cpu_backend())
    return {{&kCpuAdd, &kAdd}, {&kCpuSwiglu, &kSwiglu}, {&kCpuSwigluBackward, &kSwigluBackward}};
  return {{backend.chain_kernel(kAdd), &kAdd},
          {backend.chain_kernel(kSwiglu), &kSwiglu},
          {backend.chain_kernel(kSwigluBackward), &kSwigluBackward}};
}

}  // namespace supersonic::bench
