// The mixtures of types that llama-quantize names (Q4_K_M, IQ4_XS, …): which type each matrix of a
// GGUF file gets. Most get the mixture's format; the output layer, attn_v, attn_output and
// ffn_down, on which a model's quality depends most, get a richer one by rules over the layers. The
// rules are llama.cpp's, without an importance matrix, so that a file of ours has the types that
// people expect under its name; test_export_live.py compares them with what llama-quantize writes,
// tensor by tensor.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/format.h"

namespace supersonic::models {

struct QuantMix {
  std::string_view name;     // as --type takes it: "q4_k_m"
  std::string_view format;   // of most matrices
  std::uint32_t file_type;   // llama.cpp's number, for general.file_type
  std::string_view alias{};  // the short name, where there is one: "q4_k"
};
// Null when unknown or when its format cannot be written.
const QuantMix* find_mix(std::string_view name);
std::span<const QuantMix> all_mixes();
// The names that --type takes, aliases in place of what they stand for.
std::vector<std::string> mix_names();
// The mixture that is known under a format's own name: what a file of mostly this format says it
// is.
const QuantMix* plain_mix(const Format& format);

// What the rules ask of a model.
struct MixModel {
  std::int64_t layers = 0, heads = 1, kv_heads = 1, experts = 0;
  bool tied = false;  // the embedding is the output layer
};
// The format of a matrix; null: f16, since its rows divide into no blocks. name: in the GGUF file,
// with ".weight"; layer: -1 outside of the layers. Rows that the blocks do not divide fall back as
// writable_for() says.
const Format* mixed_format(const QuantMix& mix, std::string_view name, std::int64_t layer,
                           std::int64_t cols, const MixModel& model);
// Whether the matrix is quantized at all: the router of a mixture of experts is not.
bool is_quantized_by_mixes(std::string_view name);

}  // namespace supersonic::models
