#include "core/chain.h"

#include <algorithm>

#include "core/kernel.h"

namespace supersonic {

std::string to_string(const ChainProgram& program) {
  std::string text;
  for (std::size_t i = 0; i < program.instrs.size(); ++i) {
    if (i) text += "; ";
    text += fmt::format("v{} = {}(", program.loads + i, program.instrs[i].op->name);
    for (int k = 0; k < 3 && program.instrs[i].src[k] >= 0; ++k) text += fmt::format("{}v{}", k ? ", " : "", program.instrs[i].src[k]);
    text += ")";
  }
  return text;
}

ChainSpace chain_space(const Problem& p) {
  ChainSpace s;
  const Shape& shape = p.out[0].spec.shape;
  const int loads = static_cast<int>(p.in.size());
  for (int d = 0; d < shape.rank; ++d) {
    if (shape[d] == 1) continue;
    bool merges = s.rank > 0;
    for (int v = 0; v < loads && merges; ++v) merges = s.strides[v][s.rank - 1] == p.in[v].strides[d] * shape[d];
    if (!merges) s.dims[s.rank++] = 1;
    s.dims[s.rank - 1] *= shape[d];
    for (int v = 0; v < loads; ++v) s.strides[v][s.rank - 1] = p.in[v].strides[d];
  }
  if (s.rank == 0) {
    s.rank = 1;
    s.dims[0] = shape.numel();
    for (int v = 0; v < loads; ++v) s.strides[v][0] = 0;
  }
  return s;
}

bool chain_in_fp64(const Problem& p) {
  const auto wide = [](const Operand& o) { return o.spec.dtype == DType::f64; };
  if (std::any_of(p.in.begin(), p.in.end(), wide) || std::any_of(p.out.begin(), p.out.end(), wide)) return true;
  // Whole numbers wider than a float's 24 bits are copied, not computed with; fp64 holds them.
  return p.chain->instrs.empty() && (p.in[0].spec.dtype == DType::i32 || p.in[0].spec.dtype == DType::i64);
}

std::vector<int> last_uses(const ChainProgram& program) {
  const int instrs = static_cast<int>(program.instrs.size());
  std::vector<int> last(static_cast<std::size_t>(program.loads + instrs), -1);
  for (int i = 0; i < instrs; ++i)
    for (int v : program.instrs[i].src)
      if (v >= 0) last[v] = i;
  for (int v : program.stores) last[v] = instrs;
  return last;
}

}  // namespace supersonic
