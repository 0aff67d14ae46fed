#include "backend/cpu/chain.h"

#include <algorithm>
#include <cstring>

#include "backend/cpu/cpu_backend.h"

namespace supersonic::cpu {
namespace {

void launch_chain(const Problem& p, const Pointers& ptr, Lane& lane) {
  if (p.out[0].spec.numel() == 0) return;
  ChainTask t;
  const ChainProgram& c = *p.chain;
  const ChainSpace space = chain_space(p);
  t.loads = c.loads;
  t.num_instrs = static_cast<int>(c.instrs.size());
  t.stores = static_cast<int>(c.stores.size());
  t.rank = space.rank;
  std::copy_n(space.dims, space.rank, t.dims);
  for (int v = 0; v < t.loads; ++v) {
    t.in[v].data = ptr.in[v];
    t.in[v].type = p.in[v].spec.dtype;
    std::copy_n(space.strides[v], space.rank, t.in[v].strides);
  }
  for (int i = 0; i < t.num_instrs; ++i) {
    t.instrs[i].op = map_index(*c.instrs[i].op);
    t.instrs[i].attrs = &c.instrs[i].attrs;
    std::memcpy(t.instrs[i].src, c.instrs[i].src, sizeof t.instrs[i].src);
  }
  for (int s = 0; s < t.stores; ++s) t.out[s] = {ptr.out[s], p.out[s].spec.dtype, c.stores[s]};
  Pool& pool = pool_of(lane);
  if (chain_in_fp64(p)) return run_chain_f64(pool, t);
  switch (isa()) {
#if defined(__x86_64__)
    case Isa::avx512: return avx512::run_chain(pool, t);
    case Isa::avx2: return avx2::run_chain(pool, t);
#endif
    default: return portable::run_chain(pool, t);
  }
}

}  // namespace

const Kernel chain_kernel{.name = "cpu.chain", .launch = launch_chain, .strided = true};

}  // namespace supersonic::cpu
