// The fused tensors' bytes, an expert at a time; see the header.
#include "models/export_fused.h"

#include <algorithm>

#include "models/fused_experts.h"

namespace supersonic::models {
namespace {

using formats::MXFP4;

template <class T>
std::span<const std::byte> bytes_of_all(const std::vector<T>& values) {
  return std::as_bytes(std::span(values));
}

}  // namespace

bool FusedTensor::packed() const {
  const Format* mxfp4 = find_format(MXFP4::name);
  return !bias() && std::all_of(parts.begin(), parts.end(),
                                [&](const ModelTensor& t) { return t.type().format == mxfp4; });
}

bool FusedTensor::merged() const {
  return std::any_of(parts.begin(), parts.end(), [](const ModelTensor& t) { return t.slot; });
}

std::vector<FusedPart> FusedTensor::stored(DType type, bool as_blocks) const {
  if (!as_blocks) {
    const TensorType dense{type, nullptr};
    const Shape shape = bias() ? Shape{experts(), width()} : Shape{experts(), in(), width()};
    return {{name, shape, type, dense, false, merged(),
             [this, dense](const TensorEncoder::Sink& sink) { write_dense(dense, sink); }}};
  }
  const TensorType packed_type = parts[0].type();
  const std::int64_t blocks = in() / MXFP4::weights;
  return {
      {name + "_blocks", Shape{experts(), width(), blocks, kPackedBytes}, DType::u8, packed_type,
       true, false, [this](const TensorEncoder::Sink& sink) { write_blocks(sink); }},
      {name + "_scales", Shape{experts(), width(), blocks}, DType::u8, packed_type, true, false,
       [this](const TensorEncoder::Sink& sink) { write_scales(sink); }}};
}

void FusedTensor::write_dense(const TensorType& type, const TensorEncoder::Sink& sink) const {
  const auto count = static_cast<std::size_t>(in() * width());
  std::vector<float> rows(static_cast<std::size_t>(out() * in())), turned(count);
  std::vector<std::byte> bytes(row_bytes(type, in() * width()));
  for (std::int64_t e = 0; e < experts(); ++e) {
    for (std::size_t p = 0; p < parts.size(); ++p) {
      if (bias())
        decode_row(parts[p], e, rows.data());
      else
        for (std::int64_t r = 0; r < out(); ++r)
          decode_row(parts[p], e * out() + r, rows.data() + r * in());
      for (std::int64_t r = 0; r < out(); ++r)
        for (std::int64_t i = 0; i < in(); ++i)
          turned[static_cast<std::size_t>(i * width() +
                                          r * static_cast<std::int64_t>(parts.size())) +
                 p] = rows[static_cast<std::size_t>(r * in() + i)];
    }
    ModelTensor whole = parts[0];
    whole.cols = in() * width();
    encode_row(whole, type, e, turned.data(), bytes.data());
    sink(bytes);
  }
}

void FusedTensor::write_blocks(const TensorEncoder::Sink& sink) const {
  const std::int64_t blocks = in() / MXFP4::weights;
  std::vector<std::uint8_t> expert(static_cast<std::size_t>(width() * blocks * kPackedBytes));
  for (std::int64_t e = 0; e < experts(); ++e) {
    std::uint8_t* to = expert.data();
    for (std::int64_t r = 0; r < out(); ++r)
      for (const ModelTensor& t : parts) {
        const MXFP4::Block* row = t.data->as<MXFP4::Block>() + (e * out() + r) * blocks;
        for (std::int64_t k = 0; k < blocks; ++k, to += kPackedBytes) put_packed_block(row[k], to);
      }
    sink(bytes_of_all(expert));
  }
}

void FusedTensor::write_scales(const TensorEncoder::Sink& sink) const {
  const std::int64_t blocks = in() / MXFP4::weights;
  std::vector<std::uint8_t> expert(static_cast<std::size_t>(width() * blocks));
  for (std::int64_t e = 0; e < experts(); ++e) {
    std::uint8_t* to = expert.data();
    for (std::int64_t r = 0; r < out(); ++r)
      for (const ModelTensor& t : parts) {
        const MXFP4::Block* row = t.data->as<MXFP4::Block>() + (e * out() + r) * blocks;
        for (std::int64_t k = 0; k < blocks; ++k) *to++ = row[k].e;
      }
    sink(bytes_of_all(expert));
  }
}

std::vector<FusedTensor> take_fused_tensors(std::vector<ModelTensor>& tensors) {
  std::vector<FusedTensor> fused;
  std::vector<ModelTensor> others;
  for (ModelTensor& t : tensors) {
    const bool expert = t.role == io::Role::expert_gate || t.role == io::Role::expert_up ||
                        t.role == io::Role::expert_down;
    if (!expert) {
      others.push_back(std::move(t));
      continue;
    }
    const std::string name = t.module + (t.part == std::string_view("bias") ? "_bias" : "");
    const auto same = std::find_if(fused.begin(), fused.end(),
                                   [&](const FusedTensor& f) { return f.name == name; });
    if (same == fused.end())
      fused.push_back({name, {std::move(t)}});
    else
      same->parts.push_back(std::move(t));
  }
  tensors = std::move(others);
  return fused;
}

io::JsonTree packed_experts_config() {
  return io::JsonTree::object(
      {{"quant_method", MXFP4::name},
       {"modules_to_not_convert",
        io::JsonTree::array({"model.layers.*.self_attn", "model.layers.*.mlp.router",
                             "model.embed_tokens", "lm_head"})}});
}

}  // namespace supersonic::models
