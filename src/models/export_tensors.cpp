// The model's tensors, decoded, merged, reordered and encoded row by row; see the header.
#include "models/export_tensors.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <exception>
#include <mutex>

#include "backend/cpu/cpu_backend.h"
#include "core/interrupt.h"
#include "core/machine.h"
#include "models/parts.h"

namespace supersonic::models {
namespace {

constexpr std::size_t kPieceBytes = std::size_t{8} << 20;

template <class Half>
void widen(const void* from, std::int64_t first, std::int64_t count, float* out) {
  const Half* in = static_cast<const Half*>(from) + first;
  for (std::int64_t i = 0; i < count; ++i) out[i] = static_cast<float>(in[i]);
}

void decode_weights(const ModelTensor& t, std::int64_t row, float* out) {
  const Storage& s = *t.data;
  const std::int64_t first = (t.first + row) * t.cols;
  switch (s.spec.dtype) {
    case DType::f32:
      std::memcpy(out, s.as<float>() + first, static_cast<std::size_t>(t.cols) * sizeof(float));
      return;
    case DType::f16:
      return widen<f16>(s.as<void>(), first, t.cols, out);
    case DType::bf16:
      return widen<bf16>(s.as<void>(), first, t.cols, out);
    case DType::quant:
      return s.spec.format->decode(s.planes, first, t.cols, out);
    default:
      fail(ErrorKind::failure, "{}.{}: {} values cannot be exported", t.module, t.part,
           name_of(s.spec.dtype));
  }
}

// w += scale * B[row] A, of the expert whose row it is.
void merge_row(const ModelTensor& t, std::int64_t row, float* w) {
  const nn::LoraSlot& s = *t.slot;
  const std::int64_t at = t.first + row;
  const float* b = t.lora + s.b + t.lora_part * s.part_size() + at * s.rank;
  const float* all_a = t.lora + s.a + at / s.out * s.rank * s.in;
  std::vector<float> delta(static_cast<std::size_t>(s.in));
  for (std::int64_t k = 0; k < s.rank; ++k) {
    const float* a = all_a + k * s.in;
    for (std::int64_t j = 0; j < s.in; ++j) delta[static_cast<std::size_t>(j)] += b[k] * a[j];
  }
  for (std::int64_t j = 0; j < s.in; ++j) w[j] += s.scale * delta[static_cast<std::size_t>(j)];
}

template <class Half>
void narrow(std::int64_t row, std::int64_t cols, const float* w, std::byte* out) {
  for (std::int64_t j = 0; j < cols; ++j) {
    const Half half(w[j]);
    CHECK(std::isfinite(static_cast<float>(half)) || !std::isfinite(w[j]),
          "weight {} of row {} is {}, more than f16 can hold: choose bf16 or f32", j, row, w[j]);
    std::memcpy(out + static_cast<std::size_t>(j) * sizeof half, &half, sizeof half);
  }
}

}  // namespace

void decode_row(const ModelTensor& t, std::int64_t row, float* out) {
  decode_weights(t, row, out);
  if (t.slot) merge_row(t, row, out);
}

void encode_row(const ModelTensor& t, const TensorType& type, std::int64_t row, const float* w,
                std::byte* out) {
  switch (type.dtype) {
    case DType::f32:
      std::memcpy(out, w, static_cast<std::size_t>(t.cols) * sizeof(float));
      return;
    case DType::f16:
      return narrow<f16>(row, t.cols, w, out);
    case DType::bf16:
      return narrow<bf16>(row, t.cols, w, out);
    default:
      break;
  }
  void* planes[kMaxPlanes] = {out};
  type.format->encode(w, 1, t.cols, planes);
}

namespace {

[[noreturn]] void rethrow_named(const std::exception_ptr& error, const ModelTensor& t) {
  try {
    std::rethrow_exception(error);
  } catch (const Error& e) {
    throw Error(fmt::format("{}.{}: {}", t.module, t.part, e.what()), e.kind());
  }
}

}  // namespace

std::optional<TensorType> find_type(std::string_view name) {
  for (DType t : {DType::f32, DType::f16, DType::bf16})
    if (name == supersonic::name_of(t)) return TensorType{t, nullptr};
  const Format* f = find_format(name);
  if (!f || f->ggml_type < 0 || !f->encode) return std::nullopt;
  return TensorType{DType::quant, f};
}

std::size_t row_bytes(const TensorType& type, std::int64_t cols) {
  return type.format ? total_bytes(*type.format, 1, cols)
                     : size_of(type.dtype) * static_cast<std::size_t>(cols);
}

std::size_t ExportSummary::copied() const {
  std::size_t n = tensors;
  for (const auto& [type, count] : encoded) n -= count;
  return n;
}

namespace {

struct Lister {
  const Model& model;
  const nn::LoraSet* lora;
  std::vector<ModelTensor> out = {};

  ModelTensor& add(const PartInfo& info, const StorageRef& s, const char* part) {
    const Shape& shape = s->spec.shape;
    out.push_back({.module = info.hf,
                   .gguf = info.gguf,
                   .part = part,
                   .data = s.get(),
                   .rows = shape[0],
                   .cols = shape.rank == 2 ? shape[1] : 1,
                   .heads = info.heads});
    out.back().role = info.role;
    return out.back();
  }
  void operator()(const PartInfo& info, const StorageRef& s) {
    if (info.hf == "lm_head" && model.head == model.embedding) return;
    ModelTensor& t = add(info, s, "weight");
    t.bare = info.kind == PartKind::vector;
    t.unit_norm = info.kind == PartKind::norm && io::architecture_of(model.config).unit_norms;
  }
  void operator()(const PartInfo& info, const nn::Linear& l) {
    ModelTensor& t = add(info, l.weight, "weight");
    if (lora && l.lora >= 0)
      t.slot = &lora->slots[static_cast<std::size_t>(l.lora)], t.lora = lora->values->as<float>();
    if (l.bias) add(info, l.bias, "bias");
  }
  void operator()(const PartInfo& info, const nn::Experts& e) {
    ModelTensor& t = add(info, e.weight, "weight");
    t.experts = model.config.experts.count;
    if (lora && e.lora >= 0) {
      t.slot = &lora->slots[static_cast<std::size_t>(e.lora)], t.lora = lora->values->as<float>();
      t.lora_part = e.part;
    }
    if (e.bias) add(info, e.bias, "bias");
  }
};

}  // namespace

std::vector<ModelTensor> model_tensors(const Model& model, const nn::LoraSet* lora) {
  Lister list{model, lora};
  for_each_part(model, list);
  return std::move(list.out);
}

TensorEncoder::TensorEncoder(const Model& model, bool gguf)
    : gguf_(gguf),
      model_layout_(model.interleaved_rope ? io::QkLayout::interleaved : io::QkLayout::half_split),
      layout_(gguf && io::architecture_of(model.config).gguf_interleaved
                  ? io::QkLayout::interleaved
                  : io::QkLayout::half_split),
      head_dim_(model.config.head_dim),
      pool_(cpu::default_threads()) {}

bool TensorEncoder::encode(const ModelTensor& t, const TensorType& type, const Sink& sink) {
  CHECK(!t.data->spec.format || t.data->spec.format->row_blocks,
        "{}.{}: {} weights cannot be exported row by row", t.module, t.part, name_of(t.type()));
  order_.clear();
  if (t.heads > 0 && model_layout_ != layout_)
    order_ = io::qk_row_order(t.heads, head_dim_, layout_);
  const std::size_t bytes = row_bytes(type, t.cols);
  const auto piece = std::max<std::int64_t>(
      pool_.threads(), static_cast<std::int64_t>(kPieceBytes / std::max<std::size_t>(bytes, 1)));
  std::vector<std::byte> buffer(bytes * static_cast<std::size_t>(std::min(piece, t.rows)));
  for (std::int64_t first = 0; first < t.rows; first += piece) {
    check_interrupt();
    const std::int64_t count = std::min(piece, t.rows - first);
    std::exception_ptr error;
    std::mutex guard;
    pool_.ranges(count, 1, [&](std::int64_t begin, std::int64_t end, int) {
      try {
        encode_rows(t, type, first + begin, end - begin,
                    buffer.data() + static_cast<std::size_t>(begin) * bytes);
      } catch (...) {
        const std::lock_guard lock(guard);
        if (!error) error = std::current_exception();
      }
    });
    if (error) rethrow_named(error, t);
    sink({buffer.data(), bytes * static_cast<std::size_t>(count)});
  }
  return copies(t, type);
}

bool TensorEncoder::copies(const ModelTensor& t, const TensorType& type) const {
  return !t.slot && type == t.type() && !(t.unit_norm && !gguf_);
}

void TensorEncoder::encode_rows(const ModelTensor& t, const TensorType& type, std::int64_t first,
                                std::int64_t count, std::byte* out) {
  const std::size_t bytes = row_bytes(type, t.cols);
  const bool copy = copies(t, type);
  std::vector<float> row(copy ? 0 : static_cast<std::size_t>(t.cols));
  for (std::int64_t i = first; i < first + count; ++i, out += bytes) {
    const std::int64_t from = order_.empty() ? i : order_[static_cast<std::size_t>(i)];
    if (copy) {
      std::memcpy(out, t.data->as<std::byte>() + static_cast<std::size_t>(t.first + from) * bytes,
                  bytes);
      continue;
    }
    decode_row(t, from, row.data());
    if (t.unit_norm && !gguf_) row[0] -= 1.0f;  // cols is 1
    encode_row(t, type, from, row.data(), out);
  }
}

void check_room(const std::string& path, std::uint64_t bytes) {
  const std::uint64_t free_bytes = free_disk_bytes(path);
  CHECK(free_bytes >= bytes,
        "{}: the disk is full: {} MiB are needed and {} MiB are free there; free some room, or "
        "choose an output on another disk",
        path, (bytes >> 20) + 1, free_bytes >> 20);
}

}  // namespace supersonic::models
