// From a ChainProgram to the interpreter's task: slots are given to values and taken back as they
// die, dimensions are merged along which every operand walks evenly, and each operand's access is
// classified.
#include "backend/cuda/chain.h"

#include <cstring>

#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/kernels/chain.h"
#include "map_ops.h"

namespace supersonic::cuda {
namespace {

static_assert(kChainLoads == kMaxChainLoads && kChainInstrs == kMaxChainInstructions &&
              kChainStores == kMaxChainStores && kChainRank == kMaxRank);

std::uint8_t map_index(const Op* wanted) {
  static const Op* const ops[] = {
#define SUPERSONIC_MAP_RECORD(M) &op<M>(),
      SUPERSONIC_MAP_OPS(SUPERSONIC_MAP_RECORD)
#undef SUPERSONIC_MAP_RECORD
  };
  static_assert(std::size(ops) < 256);
  for (std::size_t i = 0; i < std::size(ops); ++i)
    if (ops[i] == wanted) return static_cast<std::uint8_t>(i);
  fail(ErrorKind::failure, "{}: not an elementwise operation", wanted->name);
}

void collapse(ChainTask& t, const Problem& p) {
  const Shape& shape = p.out[0].spec.shape;
  t.rank = 0;
  for (int d = 0; d < shape.rank; ++d) {
    if (shape[d] == 1) continue;
    bool merges = t.rank > 0;
    for (int v = 0; v < t.loads && merges; ++v)
      merges = t.in[v].strides[t.rank - 1] == p.in[v].strides[d] * shape[d];
    if (!merges) t.dims[t.rank++] = 1;
    t.dims[t.rank - 1] *= shape[d];
    for (int v = 0; v < t.loads; ++v) t.in[v].strides[t.rank - 1] = p.in[v].strides[d];
  }
  if (t.rank == 0) {
    t.rank = 1;
    t.dims[0] = 1;
    for (int v = 0; v < t.loads; ++v) t.in[v].strides[0] = 0;
  }
  t.total = shape.numel();
}

// Values get slots; a result may take the slot of an operand that dies with it, which is read
// before.
void assign_slots(ChainTask& t, const ChainProgram& c) {
  constexpr int kValues = kMaxChainLoads + kMaxChainInstructions;
  const int values = t.loads + t.num_instrs;
  int last_use[kValues], slot_of[kValues];
  bool busy[kValues] = {};
  for (int v = 0; v < values; ++v) last_use[v] = -1;
  for (int i = 0; i < t.num_instrs; ++i)
    for (int k = 0; k < 3; ++k)
      if (c.instrs[i].src[k] >= 0) last_use[c.instrs[i].src[k]] = i;
  for (auto v : c.stores) last_use[v] = t.num_instrs;
  t.slots = 0;
  auto take = [&](int v) {
    int s = 0;
    while (busy[s]) ++s;
    busy[s] = true;
    slot_of[v] = s;
    t.slots = std::max(t.slots, s + 1);
    return static_cast<std::uint8_t>(s);
  };
  for (int v = 0; v < t.loads; ++v) t.in[v].slot = take(v);
  for (int i = 0; i < t.num_instrs; ++i) {
    for (int k = 0; k < 3; ++k) {
      const int v = c.instrs[i].src[k];
      t.instrs[i].src[k] =
          static_cast<std::uint8_t>(v >= 0 ? slot_of[v] : slot_of[c.instrs[i].src[0]]);
    }
    for (int v = 0; v < t.loads + i; ++v)
      if (last_use[v] == i) busy[slot_of[v]] = false;
    t.instrs[i].slot = take(t.loads + i);
  }
  for (int s = 0; s < t.stores; ++s)
    t.out[s].slot = static_cast<std::uint8_t>(slot_of[c.stores[s]]);
}

bool aligned(const void* p, DType type, int width) {
  return reinterpret_cast<std::uintptr_t>(p) % (size_of(type) * width) == 0;
}

void classify(ChainTask& t, int width) {
  const int inner = t.rank - 1;
  for (int v = 0; v < t.loads; ++v) {
    auto& in = t.in[v];
    if (in.strides[inner] == 0) {
      in.access = ChainAccess::one;
    } else if (in.strides[inner] != 1) {
      in.access = ChainAccess::strided;
    } else {
      bool whole = aligned(in.data, in.type, width);
      for (int d = 0; d < inner; ++d) whole &= in.strides[d] % width == 0;
      in.access = whole ? ChainAccess::vector : ChainAccess::dense;
    }
  }
  for (int s = 0; s < t.stores; ++s) t.out[s].vector = aligned(t.out[s].data, t.out[s].type, width);
}

int width_of(const ChainTask& t, bool f64) {
  auto fits = [&](int width) { return t.rank == 1 || t.dims[t.rank - 1] % width == 0; };
  if (f64) return fits(2) ? 2 : 1;
  bool narrow = true;
  for (int v = 0; v < t.loads; ++v) narrow &= size_of(t.in[v].type) <= 2;
  for (int s = 0; s < t.stores; ++s) narrow &= size_of(t.out[s].type) <= 2;
  return narrow && fits(8) ? 8 : fits(4) ? 4 : 1;
}

void launch_chain(const Problem& p, const Pointers& ptr, Lane& lane) {
  if (p.out[0].spec.numel() == 0) return;
  const ChainProgram& c = *p.chain;
  ChainTask t{};
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
    std::memcpy(t.instrs[i].attrs, c.instrs[i].attrs.bytes, kChainAttrBytes);
  }
  for (int s = 0; s < t.stores; ++s) {
    t.out[s].data = ptr.out[s];
    t.out[s].type = p.out[s].spec.dtype;
    f64 |= t.out[s].type == DType::f64;
  }
  assign_slots(t, c);
  collapse(t, p);
  // Whole numbers wider than a float's 24 bits are copied, not computed with; fp64 holds them.
  f64 |= t.num_instrs == 0 && (t.in[0].type == DType::i32 || t.in[0].type == DType::i64);
  const int width = width_of(t, f64);
  classify(t, width);
  run_chain(t, f64, width, limits_of(lane).multiprocessors, stream_of(lane));
}

}  // namespace

const Kernel chain_kernel{.name = "cuda.chain", .launch = launch_chain, .strided = true};

}  // namespace supersonic::cuda
