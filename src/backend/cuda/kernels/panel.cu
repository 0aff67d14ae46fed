// Decodes a rectangle of a matrix into a dense panel. One thread takes eight weights: byte loads
// that the L1 cache joins, one or two 16-byte stores. Bytes moved: those of the codes and the
// panel's; limit: the copy bandwidth (about 24 weights a cycle and multiprocessor, of which the
// load unit allows 25 at ten loads a piece).
#include "backend/cuda/kernels/panel.h"

#include <algorithm>

#include "backend/cuda/kernels/device.cuh"
#include "backend/cuda/kernels/panel_sources.cuh"

namespace supersonic::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kMostExtras = 6;
constexpr std::int64_t kFew = 1 << 22;  // elements that an extra may have

// The rectangle as rows of pieces. A whole matrix is one long row, whose last piece may be short.
struct Rectangle {
  std::int64_t first = 0, stride = 0;  // element where row 0 begins; elements from row to row
  std::int64_t width = 0, pieces = 0;  // elements and pieces of a row
  std::int64_t total = 0;              // pieces
  const std::int32_t* live = nullptr;
  std::int32_t live_from = 0;
};

struct FloatSource {
  using Table = NoTable;
  const void* data = nullptr;
  DType type = DType::f32;
  __device__ void decode8(const NoTable&, std::int64_t at, int count, float* out) const {
    if (type == DType::f32 && count == 8 &&
        (reinterpret_cast<std::uintptr_t>(data) + 4 * at) % 16 == 0) {
      const auto* p = reinterpret_cast<const float4*>(static_cast<const float*>(data) + at);
      const float4 a = p[0], b = p[1];
      out[0] = a.x, out[1] = a.y, out[2] = a.z, out[3] = a.w;
      out[4] = b.x, out[5] = b.y, out[6] = b.z, out[7] = b.w;
      return;
    }
    for (int i = 0; i < 8; ++i) out[i] = i < count ? load_float(data, type, at + i) : 0;
  }
};

template <class T>
__device__ void store8(T* out, int count, const float* v) {
  if constexpr (sizeof(T) == 2) {
    if (count == 8 && reinterpret_cast<std::uintptr_t>(out) % 16 == 0) {
      *reinterpret_cast<uint4*>(out) = make_uint4(pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]),
                                                  pack_bf16(v[4], v[5]), pack_bf16(v[6], v[7]));
      return;
    }
  } else if (count == 8 && reinterpret_cast<std::uintptr_t>(out) % 16 == 0) {
    reinterpret_cast<float4*>(out)[0] = make_float4(v[0], v[1], v[2], v[3]);
    reinterpret_cast<float4*>(out)[1] = make_float4(v[4], v[5], v[6], v[7]);
    return;
  }
  for (int i = 0; i < 8; ++i)
    if (i < count) out[i] = from_float<T>(v[i]);
}

// Block `block` of `blocks` that share the rectangle.
template <class Source, class T>
__device__ void decode(const Source& source, const typename Source::Table& table,
                       const Rectangle& r, T* out, unsigned block, unsigned blocks) {
  const std::int64_t step = static_cast<std::int64_t>(blocks) * kThreads;
  for (std::int64_t p = static_cast<std::int64_t>(block) * kThreads + threadIdx.x; p < r.total;
       p += step) {
    const std::int64_t row =
        r.pieces == r.total ? 0 : p / r.pieces;  // a division costs as much as the rest
    const std::int64_t at = (p - row * r.pieces) * 8;
    const int count = r.width - at < 8 ? static_cast<int>(r.width - at) : 8;
    float v[8];
    source.decode8(table, r.first + row * r.stride + at, count, v);
    store8(out + row * r.width + at, count, v);
  }
}

// Few floats that further blocks of a launch convert, an element a thread: registers that they need
// are registers of the decoders.
struct Floats {
  const void* data;
  DType type;
  unsigned first, stride, width, total;  // elements
  void* out;
};
struct Extras {
  int count = 0;
  Floats of[kMostExtras];
};

template <class T>
__device__ void convert(const Floats& f, unsigned block, unsigned blocks) {
  for (unsigned i = block * kThreads + threadIdx.x; i < f.total; i += blocks * kThreads)
    static_cast<T*>(f.out)[i] =
        from_float<T>(load_float(f.data, f.type, f.first + i / f.width * f.stride + i % f.width));
}

// Blocks at once on a multiprocessor: where it holds 2,048 threads, the decoders to bf16 shall fill
// it.
#if __CUDA_ARCH__ == 800 || __CUDA_ARCH__ == 900
template <class Source, class T>
constexpr int at_once = !std::is_same_v<Source, FloatSource> && sizeof(T) == 2 ? 8 : 6;
#else
template <class Source, class T>
constexpr int at_once = 4;
#endif

template <class Source, class T>
__global__ void __launch_bounds__(kThreads, at_once<Source, T>)
    panel_kernel(const Source source, const Rectangle r, T* out, unsigned blocks,
                 const __grid_constant__ Extras extras) {
  if (r.live && *r.live <= r.live_from) return;
  if (blockIdx.x >= blocks) {
    for (int i = 0; i < extras.count; ++i)
      convert<T>(extras.of[i], blockIdx.x - blocks, gridDim.x - blocks);
    return;
  }
  __shared__ typename Source::Table table;
  fill(table);
  decode(source, table, r, out, blockIdx.x, blocks);
}

Rectangle rectangle_of(const PanelCall& c) {
  Rectangle r;
  const bool whole = c.width == c.cols;
  r.first = c.row * c.cols + c.col;
  r.stride = c.cols;
  r.width = whole ? c.rows * c.cols : c.width;
  r.pieces = ceil_div(r.width, 8);
  r.total = whole ? r.pieces : r.pieces * c.rows;
  r.live = c.live, r.live_from = c.live_from;
  return r;
}

unsigned blocks_for(std::int64_t pieces) {
  return static_cast<unsigned>(
      std::min<std::int64_t>(ceil_div(pieces, kThreads), 64 * device_limits().multiprocessors));
}

template <class Source>
void launch(const Source& source, const PanelCall& c, const Extras& extras, cudaStream_t stream) {
  const Rectangle r = rectangle_of(c);
  unsigned most = 0;
  for (int i = 0; i < extras.count; ++i) most = std::max(most, extras.of[i].total);
  const unsigned blocks = blocks_for(r.total), all = blocks + blocks_for(most);
  if (all == 0) return;
  if (c.out_type == DType::bf16) {
    panel_kernel<<<all, kThreads, 0, stream>>>(source, r, static_cast<__nv_bfloat16*>(c.out),
                                               blocks, extras);
  } else {
    panel_kernel<<<all, kThreads, 0, stream>>>(source, r, static_cast<float*>(c.out), blocks,
                                               extras);
  }
  check_launch("decode_panel");
}

template <Codec C>
void launch_blocks(const PanelCall& c, const Extras& extras, cudaStream_t stream) {
  launch(BlockSource<C>{static_cast<const typename Piece<C>::Block*>(c.planes.data[0])}, c, extras,
         stream);
}

void launch_any(const PanelCall& c, const Extras& extras, cudaStream_t stream) {
  if (!quantized(c.codec))
    return launch(FloatSource{c.planes.data[0], float_type(c.codec)}, c, extras, stream);
  if (c.codec == Codec::nf4)
    return launch(Nf4Source<true>{nf4_planes(c.planes, true)}, c, extras, stream);
  if (c.codec == Codec::nf4_plain)
    return launch(Nf4Source<false>{nf4_planes(c.planes, false)}, c, extras, stream);
  if (!with_block_codec(c.codec,
                        [&](auto codec) { launch_blocks<codec.value>(c, extras, stream); }))
    check(cudaErrorInvalidValue, "decode_panel: this format has no decoder");
}

bool is_extra(const PanelCall& c) {
  return !quantized(c.codec) && c.rows * c.width <= kFew &&
         (c.row + c.rows) * c.cols <= std::int64_t{1} << 31;
}

}  // namespace

void decode_panel(const PanelCall& c, cudaStream_t stream) { launch_any(c, {}, stream); }

void decode_panels(std::span<const PanelCall> calls, cudaStream_t stream) {
  Extras extras;
  const PanelCall* leader = nullptr;  // the first that is no extra, else the last
  for (const PanelCall& c : calls)
    if (!leader || is_extra(*leader)) leader = &c;
  for (const PanelCall& c : calls) {
    if (&c == leader) continue;
    if (!is_extra(c) || extras.count == kMostExtras) {
      decode_panel(c, stream);
    } else {
      extras.of[extras.count++] = {c.planes.data[0],
                                   float_type(c.codec),
                                   static_cast<unsigned>(c.row * c.cols + c.col),
                                   static_cast<unsigned>(c.cols),
                                   static_cast<unsigned>(c.width),
                                   static_cast<unsigned>(c.rows * c.width),
                                   c.out};
    }
  }
  if (leader) launch_any(*leader, extras, stream);
}

}  // namespace supersonic::cuda
