// The tiled interpreter of elementwise chains, for one element type and one instruction set. All instructions run on a tile
// before the next tile, so intermediate values stay in the first-level cache. A source is a tile register, dense memory of the
// element type, or one repeated value; other dtypes and strides are converted into a register first. Registers are reused as
// values die. `V` is the vector that maps compute with; it brings the vocabulary of ops/map/functions.h.
// Included by chain_*.cpp alone, inside a namespace of its own per instruction set.

template <class T>
struct Source {
  const T* data;
  bool one;  // the same value for the whole tile
};

template <class T>
using Loop = void (*)(const Attrs&, const Source<T>*, T* out, int n);

// One loop per operation and per choice of repeated operands.
template <class T, class V, class M, int ones>
void map_loop(const Attrs& attrs, const Source<T>* src, T* out, int n) {
  const M& m = attrs.as<M>();
  auto operand = [&](int k, int i) { return (ones >> k & 1) ? V::repeat(*src[k].data) : V::load(src[k].data + i); };
  for (int i = 0; i < n; i += V::lanes) {
    if constexpr (M::arity == 1) M::map(m, operand(0, i)).store(out + i);
    if constexpr (M::arity == 2) M::map(m, operand(0, i), operand(1, i)).store(out + i);
    if constexpr (M::arity == 3) M::map(m, operand(0, i), operand(1, i), operand(2, i)).store(out + i);
  }
}

template <class T, class V, class M>
constexpr auto map_loops() {
  return std::array<Loop<T>, 8>{map_loop<T, V, M, 0>, map_loop<T, V, M, 1>, map_loop<T, V, M, 2 & ((1 << M::arity) - 1)>,
                                map_loop<T, V, M, 3 & ((1 << M::arity) - 1)>, map_loop<T, V, M, 4 & ((1 << M::arity) - 1)>,
                                map_loop<T, V, M, 5 & ((1 << M::arity) - 1)>, map_loop<T, V, M, 6 & ((1 << M::arity) - 1)>,
                                map_loop<T, V, M, 7 & ((1 << M::arity) - 1)>};
}

template <class T, class V>
struct ChainRunner {
  static inline const std::array<Loop<T>, 8> kLoops[] = {
#define SUPERSONIC_MAP_LOOP(M) map_loops<T, V, ::supersonic::M>(),
      SUPERSONIC_MAP_OPS(SUPERSONIC_MAP_LOOP)
#undef SUPERSONIC_MAP_LOOP
  };
  static constexpr int kValues = kMaxChainLoads + kMaxChainInstructions;

  const ChainTask& task;
  std::int16_t last_use[kValues];
  std::int16_t register_of[kValues];
  int registers = 0;

  explicit ChainRunner(const ChainTask& t) : task(t) {
    const int values = t.loads + t.num_instrs;
    for (int v = 0; v < values; ++v) last_use[v] = -1;
    for (int i = 0; i < t.num_instrs; ++i)
      for (int k = 0; k < 3; ++k)
        if (t.instrs[i].src[k] >= 0) last_use[t.instrs[i].src[k]] = static_cast<std::int16_t>(i);
    for (int s = 0; s < t.stores; ++s) last_use[t.out[s].value] = static_cast<std::int16_t>(t.num_instrs);
    bool busy[kValues] = {}, one[kValues];
    for (int v = 0; v < t.loads; ++v) one[v] = t.in[v].strides[t.rank - 1] == 0;
    for (int i = 0; i < t.num_instrs; ++i) {
      one[t.loads + i] = true;
      for (int k = 0; k < 3 && t.instrs[i].src[k] >= 0; ++k) one[t.loads + i] &= one[t.instrs[i].src[k]];
    }
    auto take = [&](int v) {
      int r = 0;
      while (busy[r]) ++r;
      busy[r] = true;
      register_of[v] = static_cast<std::int16_t>(r);
      registers = r + 1 > registers ? r + 1 : registers;
    };
    for (int v = 0; v < t.loads; ++v) take(v);
    for (int i = 0; i < t.num_instrs; ++i) {
      // A result may take the register of an operand that dies here: elements are read before they are written. A repeated
      // operand is read throughout, so its register stays.
      for (int v = 0; v < t.loads + i; ++v)
        if (last_use[v] == i && (!one[v] || one[t.loads + i])) busy[register_of[v]] = false;
      take(t.loads + i);
    }
  }

  template <class From>
  static Source<T> gather(const From* from, std::int64_t stride, T* tile, int n) {
    if (stride == 0) {
      tile[0] = V::widen(from[0]);
      return {tile, true};
    }
    if (stride == 1) V::convert_in(from, tile, n);
    else
      for (int i = 0; i < n; ++i) tile[i] = V::widen(from[i * stride]);
    return {tile, false};
  }

  static Source<T> load(const ChainTask::In& in, std::int64_t offset, std::int64_t stride, T* tile, int n) {
    switch (in.type) {
      case DType::f32: {
        const auto* p = static_cast<const float*>(in.data) + offset;
        if constexpr (std::is_same_v<T, float>) {
          if (stride == 0) return {p, true};
          if (stride == 1 && n % V::lanes == 0) return {p, false};
        }
        return gather(p, stride, tile, n);
      }
      case DType::f16: return gather(static_cast<const f16*>(in.data) + offset, stride, tile, n);
      case DType::bf16: return gather(static_cast<const bf16*>(in.data) + offset, stride, tile, n);
      case DType::f64: return gather(static_cast<const double*>(in.data) + offset, stride, tile, n);
      case DType::i32: return gather(static_cast<const std::int32_t*>(in.data) + offset, stride, tile, n);
      case DType::i64: return gather(static_cast<const std::int64_t*>(in.data) + offset, stride, tile, n);
      case DType::i8: return gather(static_cast<const std::int8_t*>(in.data) + offset, stride, tile, n);
      default: return gather(static_cast<const std::uint8_t*>(in.data) + offset, stride, tile, n);
    }
  }

  template <class To>
  static void scatter(const Source<T>& from, To* to, int n) {
    if (from.one) {
      for (int i = 0; i < n; ++i) to[i] = V::template narrow<To>(*from.data);
    } else {
      V::convert_out(from.data, to, n);
    }
  }

  static void store(const ChainTask::Out& out, std::int64_t offset, const Source<T>& from, int n) {
    switch (out.type) {
      case DType::f32: return scatter(from, static_cast<float*>(out.data) + offset, n);
      case DType::f16: return scatter(from, static_cast<f16*>(out.data) + offset, n);
      case DType::bf16: return scatter(from, static_cast<bf16*>(out.data) + offset, n);
      case DType::f64: return scatter(from, static_cast<double*>(out.data) + offset, n);
      case DType::i32: return scatter(from, static_cast<std::int32_t*>(out.data) + offset, n);
      case DType::i64: return scatter(from, static_cast<std::int64_t*>(out.data) + offset, n);
      case DType::i8: return scatter(from, static_cast<std::int8_t*>(out.data) + offset, n);
      default: return scatter(from, static_cast<std::uint8_t*>(out.data) + offset, n);
    }
  }

  // One tile: `n` elements from column `col` of outer row `row`.
  void tile(std::int64_t row, std::int64_t col, int n, T (*tiles)[kChainTile]) const {
    Source<T> value[kValues];
    const int inner = task.rank - 1;
    for (int v = 0; v < task.loads; ++v) {
      const auto& in = task.in[v];
      std::int64_t offset = col * in.strides[inner], rest = row;
      for (int d = inner - 1; d >= 0; --d) {
        offset += rest % task.dims[d] * in.strides[d];
        rest /= task.dims[d];
      }
      value[v] = load(in, offset, in.strides[inner], tiles[register_of[v]], n);
    }
    for (int i = 0; i < task.num_instrs; ++i) {
      const auto& instr = task.instrs[i];
      Source<T> src[3];
      int ones = 0, arity = 0;
      for (; arity < 3 && instr.src[arity] >= 0; ++arity) {
        src[arity] = value[instr.src[arity]];
        ones |= src[arity].one << arity;
      }
      T* out = tiles[register_of[task.loads + i]];
      const bool one = ones == (1 << arity) - 1;
      T lanes[16];  // a repeated result is computed once
      kLoops[instr.op][ones](*instr.attrs, src, one ? lanes : out, one ? 1 : n);
      if (one) out[0] = lanes[0];
      value[task.loads + i] = {out, one};
    }
    for (int s = 0; s < task.stores; ++s)
      store(task.out[s], row * task.dims[inner] + col, value[task.out[s].value], n);
  }

  void run(Pool& pool) const {
    const std::int64_t cols = task.dims[task.rank - 1];
    std::int64_t rows = 1;
    for (int d = 0; d + 1 < task.rank; ++d) rows *= task.dims[d];
    const std::int64_t tiles_per_row = (cols + kChainTile - 1) / kChainTile, total = rows * tiles_per_row;
    const std::int64_t grain = cols >= kChainTile ? 8 : (8 * kChainTile + cols) / (cols + 1) + 1;
    pool.ranges(total, grain, [&](std::int64_t begin, std::int64_t end, int) {
      alignas(64) T tiles[kValues][kChainTile];
      for (std::int64_t u = begin; u < end; ++u) {
        const std::int64_t col = u % tiles_per_row * kChainTile;
        tile(u / tiles_per_row, col, static_cast<int>(cols - col < kChainTile ? cols - col : kChainTile), tiles);
      }
    });
  }
};
