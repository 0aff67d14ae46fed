#include "infer/roofline.h"

namespace supersonic::infer {

ForwardWork forward_work(const models::Model& model, std::int64_t tokens, std::int64_t scored) {
  const auto n = static_cast<double>(tokens);
  ForwardWork w;
  for (const nn::Linear* l : model.linears())
    w.products += 2.0 * static_cast<double>(l->weight->spec.numel()) * n;
  w.products += 2.0 * static_cast<double>(model.head->spec.numel()) * static_cast<double>(scored);
  const auto& c = model.config;
  const double width =
      static_cast<double>(c.num_attention_heads * c.head_dim * c.num_hidden_layers);
  w.attention = 4.0 * width * n * (n + 1) / 2;
  return w;
}

double shortest_time(const ForwardWork& work, const cpu::Limits& limits, Compute compute) {
  const double rate = compute == Compute::int8   ? limits.int8
                      : compute == Compute::bf16 ? limits.bf16
                                                 : limits.fp32;
  return work.products / rate +
         work.attention / (compute == Compute::fp32 ? limits.fp32 : limits.bf16);
}

ForwardWork lora_step_work(const models::Model& model, const nn::LoraSet& lora, std::int64_t rows,
                           std::int64_t length) {
  ForwardWork w = forward_work(model, length, length);
  const auto n = static_cast<double>(rows);
  w.products *= 2 * n;
  for (const nn::LoraSlot& s : lora.slots) {
    const std::int64_t each = s.experts ? model.config.experts.used : 1;  // matrices for a token
    w.products += 6.0 * static_cast<double>(each * s.rank * (s.in + s.parts * s.out)) * n *
                  static_cast<double>(length);
  }
  w.attention *= 3 * n;  // backward: the scores' gradient, q's, k's and v's
  return w;
}

ForwardWork full_step_work(const models::Model& model, std::int64_t rows, std::int64_t length) {
  ForwardWork w = forward_work(model, length, length);
  w.products *= 3 * static_cast<double>(rows);
  w.attention *= 3 * static_cast<double>(rows);
  return w;
}

double decode_bytes(const models::Model& model, double context, const models::TensorType& kv_type) {
  double n = static_cast<double>(model.head->bytes);
  for (const nn::Linear* l : model.linears()) n += static_cast<double>(l->weight->bytes);
  const auto& c = model.config;
  const Spec row{{c.num_key_value_heads, c.head_dim}, kv_type.dtype, kv_type.format};
  return n + static_cast<double>(2 * c.num_hidden_layers) * static_cast<double>(bytes_of(row)) *
                 context;
}

}  // namespace supersonic::infer
