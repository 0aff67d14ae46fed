// From a ChainProgram to a launch: the catalogue's kernel where it has one for the program, the
// operands are dense and of one type and all addresses suit; else the interpreter's task, where
// slots are given to values and taken back as they die and each operand's access is classified.
#include "backend/cuda/chain.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/kernels/chain.h"

namespace supersonic::cuda {
namespace {

static_assert(kChainLoads == kMaxChainLoads && kChainInstrs == kMaxChainInstructions &&
              kChainStores == kMaxChainStores && kChainRank == kMaxRank);

bool aligned(const void* p, std::size_t bytes) {
  return reinterpret_cast<std::uintptr_t>(p) % bytes == 0;
}

bool code_of(const ChainProgram& c, ChainCode& code) {
  if (c.loads > kKnownLoads || c.instrs.size() > kKnownInstrs || c.stores.size() > kKnownStores)
    return false;
  code.loads = static_cast<std::uint8_t>(c.loads);
  code.instrs = static_cast<std::uint8_t>(c.instrs.size());
  code.stores = static_cast<std::uint8_t>(c.stores.size());
  for (std::size_t i = 0; i < c.instrs.size(); ++i) {
    code.instr[i].op = static_cast<std::uint8_t>(map_index(*c.instrs[i].op));
    for (int k = 0; k < 3; ++k) code.instr[i].src[k] = static_cast<std::int8_t>(c.instrs[i].src[k]);
  }
  for (std::size_t s = 0; s < c.stores.size(); ++s)
    code.store[s] = static_cast<std::int8_t>(c.stores[s]);
  return true;
}

// Whether the catalogue ran the chain.
bool run_known(const Problem& p, const ChainSpace& space, const Pointers& ptr, Lane& lane) {
  const ChainProgram& c = *p.chain;
  ChainCode code;
  if (p.in.empty() || space.rank != 1 || !code_of(c, code)) return false;
  const DType in = p.in[0].spec.dtype, out = p.out[0].spec.dtype;
  KnownChainTask t{};
  for (int v = 0; v < c.loads; ++v) {
    if (p.in[v].spec.dtype != in || space.strides[v][0] != 1 || !aligned(ptr.in[v], kKnownAlign))
      return false;
    t.in[v] = ptr.in[v];
  }
  for (int s = 0; s < static_cast<int>(c.stores.size()); ++s) {
    if (p.out[s].spec.dtype != out || !aligned(ptr.out[s], kKnownAlign)) return false;
    t.out[s] = ptr.out[s];
  }
  const KnownChain run = find_known_chain(code, in, out);
  if (!run) return false;
  for (std::size_t i = 0; i < c.instrs.size(); ++i)
    std::memcpy(t.attrs[i].bytes, c.instrs[i].attrs.bytes, kChainAttrBytes);
  t.total = space.dims[0];
  run(t, stream_of(lane));
  return true;
}

// Values get slots; a result may take the slot of an operand that dies with it, which is read
// before.
void assign_slots(ChainTask& t, const ChainProgram& c) {
  constexpr int kValues = kMaxChainLoads + kMaxChainInstructions;
  const std::vector<int> last_use = last_uses(c);
  int slot_of[kValues];
  bool busy[kValues] = {};
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

void classify(ChainTask& t, int width) {
  const int inner = t.rank - 1;
  t.few = t.rank == 1 && t.loads <= 4;
  for (int v = 0; v < t.loads; ++v) {
    auto& in = t.in[v];
    const std::size_t bytes = size_of(in.type) * static_cast<std::size_t>(width);
    if (in.strides[inner] == 0) {
      in.access = ChainAccess::one;
    } else if (in.strides[inner] != 1) {
      in.access = ChainAccess::strided;
    } else {
      bool whole = aligned(in.data, bytes);
      for (int d = 0; d < inner; ++d) whole &= in.strides[d] % width == 0;
      in.access = whole ? ChainAccess::vector : ChainAccess::dense;
    }
    t.few &= in.access == ChainAccess::vector && bytes >= 4 && bytes <= 16;
  }
  for (int s = 0; s < t.stores; ++s)
    t.out[s].vector =
        aligned(t.out[s].data, size_of(t.out[s].type) * static_cast<std::size_t>(width));
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
  const ChainSpace space = chain_space(p);
  if (run_known(p, space, ptr, lane)) return;
  ChainTask t{};
  t.loads = c.loads;
  t.num_instrs = static_cast<int>(c.instrs.size());
  t.stores = static_cast<int>(c.stores.size());
  t.rank = space.rank;
  t.total = p.out[0].spec.numel();
  std::copy_n(space.dims, space.rank, t.dims);
  for (int v = 0; v < t.loads; ++v) {
    t.in[v].data = ptr.in[v];
    t.in[v].type = p.in[v].spec.dtype;
    std::copy_n(space.strides[v], space.rank, t.in[v].strides);
  }
  for (int i = 0; i < t.num_instrs; ++i) {
    t.instrs[i].op = static_cast<std::uint8_t>(map_index(*c.instrs[i].op));
    std::memcpy(t.instrs[i].attrs, c.instrs[i].attrs.bytes, kChainAttrBytes);
  }
  for (int s = 0; s < t.stores; ++s) {
    t.out[s].data = ptr.out[s];
    t.out[s].type = p.out[s].spec.dtype;
  }
  assign_slots(t, c);
  const bool f64 = chain_in_fp64(p);
  const int width = width_of(t, f64);
  classify(t, width);
  run_chain(t, f64, width, limits_of(lane).multiprocessors, stream_of(lane));
}

}  // namespace

const Kernel chain_kernel{.name = "cuda.chain", .launch = launch_chain, .strided = true};

}  // namespace supersonic::cuda
