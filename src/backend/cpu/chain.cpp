#include "backend/cpu/chain.h"

#include <cstring>

#include "backend/cpu/cpu_backend.h"
#include "map_ops.h"

namespace supersonic::cpu {
namespace {

int map_index(const Op* wanted) {
  static const Op* const ops[] = {
#define SUPERSONIC_MAP_RECORD(M) &op<M>(),
      SUPERSONIC_MAP_OPS(SUPERSONIC_MAP_RECORD)
#undef SUPERSONIC_MAP_RECORD
  };
  for (int i = 0; i < static_cast<int>(std::size(ops)); ++i)
    if (ops[i] == wanted) return i;
  fail(ErrorKind::failure, "{}: not an elementwise operation", wanted->name);
}

// Merges neighbouring dimensions along which every operand walks evenly.
void collapse(ChainTask& t, const Problem& p) {
  const Shape& shape = p.out[0].spec.shape;
  t.rank = 0;
  for (int d = 0; d < shape.rank; ++d) {
    if (shape[d] == 1) continue;
    bool merges = t.rank > 0;
    for (int v = 0; v < t.loads && merges; ++v)
      merges = t.in[v].strides[t.rank - 1] == p.in[v].strides[d] * shape[d];
    if (merges) {
      t.dims[t.rank - 1] *= shape[d];
      for (int v = 0; v < t.loads; ++v) t.in[v].strides[t.rank - 1] = p.in[v].strides[d];
    } else {
      t.dims[t.rank] = shape[d];
      for (int v = 0; v < t.loads; ++v) t.in[v].strides[t.rank] = p.in[v].strides[d];
      ++t.rank;
    }
  }
  if (t.rank == 0) {
    t.rank = 1;
    t.dims[0] = shape.numel();
    for (int v = 0; v < t.loads; ++v) t.in[v].strides[0] = 0;
  }
}

void launch_chain(const Problem& p, const Pointers& ptr, Lane& lane) {
  if (p.out[0].spec.numel() == 0) return;
  ChainTask t;
  const ChainProgram& c = *p.chain;
  t.loads = c.loads;
  t.num_instrs = static_cast<int>(c.instrs.size());
  t.stores = static_cast<int>(c.stores.size());
  bool f64 = false;
  for (int v = 0; v < t.loads; ++v) {
    t.in[v].data = ptr.in[v];
    t.in[v].type = p.in[v].spec.dtype;
    f64 |= t.in[v].type == DType::f64;
  }
  for (int i = 0; i < t.num_instrs; ++i) {
    t.instrs[i].op = map_index(c.instrs[i].op);
    t.instrs[i].attrs = &c.instrs[i].attrs;
    std::memcpy(t.instrs[i].src, c.instrs[i].src, sizeof t.instrs[i].src);
  }
  for (int s = 0; s < t.stores; ++s) {
    t.out[s] = {ptr.out[s], p.out[s].spec.dtype, c.stores[s]};
    f64 |= t.out[s].type == DType::f64;
  }
  collapse(t, p);
  // Whole numbers wider than a float's 24 bits are copied, not computed with; fp64 holds them.
  f64 |= t.num_instrs == 0 && (t.in[0].type == DType::i32 || t.in[0].type == DType::i64);
  Pool& pool = pool_of(lane);
  if (f64) return run_chain_f64(pool, t);
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
