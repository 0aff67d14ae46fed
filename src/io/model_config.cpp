// The rules that every model configuration obeys, wherever it came from, and the mapping to and
// from GGUF metadata.
#include "io/model_config.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "core/error.h"
#include "io/architecture.h"
#include "io/float_convert.h"
#include "io/gguf.h"
#include "io/gguf_writer.h"

namespace supersonic::io {

namespace {

// Far above any real model, far below what could overflow a product of two.
constexpr std::int64_t kMaxSize = std::int64_t{1} << 24, kMaxLayers = 4096,
                       kMaxVocab = std::int64_t{1} << 26;
constexpr std::int64_t kMaxContext = std::int64_t{1} << 31, kMaxHeadDim = 4096;

void check_range(std::int64_t value, std::int64_t low, std::int64_t high, const char* field,
                 const std::string& source) {
  CHECK_FILE(value >= low && value <= high, "{}: {} is {}, {} to {} was expected", source, field,
             value, low, high);
}

void check_rope(const ModelConfig& c, const std::string& source) {
  const auto& r = c.rope_scaling;
  CHECK_FILE(std::isfinite(c.rope_theta) && c.rope_theta >= 1 && c.rope_theta <= 1e15,
             "{}: rope_theta is {}, 1 to 1e15 was expected", source, c.rope_theta);
  CHECK_FILE(std::isfinite(r.factor) && r.factor >= 1 && r.factor <= 1e6,
             "{}: the rope scaling factor is {}, 1 to 1e6 was expected", source, r.factor);
  check_range(r.original_max_position, 0, kMaxContext, "original_max_position_embeddings", source);
  CHECK_FILE(r.kind != RopeScaling::Kind::llama3 ||
                 (r.low_freq_factor > 0 && r.high_freq_factor > r.low_freq_factor &&
                  r.high_freq_factor <= 1e6 && r.original_max_position > 0),
             "{}: llama3 rope scaling needs 0 < low_freq_factor < high_freq_factor and "
             "original_max_position_embeddings",
             source);
  CHECK_FILE(r.kind != RopeScaling::Kind::yarn ||
                 (r.beta_fast > r.beta_slow && r.beta_slow > 0 && r.beta_fast <= 1e6 &&
                  r.attention_factor >= 0 && r.attention_factor <= 1e6),
             "{}: yarn rope scaling needs 0 < beta_slow < beta_fast and attention_factor >= 0",
             source);
  const auto half = static_cast<std::size_t>(c.rotary() / 2);
  CHECK_FILE(r.kind != RopeScaling::Kind::longrope ||
                 (r.short_factor.size() == half && r.long_factor.size() == half &&
                  r.original_max_position > 0 && std::isfinite(r.attention_factor)),
             "{}: longrope scaling needs {} short and long factors and the original context",
             source, half);
}

// longrope is in the tensors of its divisors and, in most files, nowhere else.
RopeScaling longrope_from_gguf(const GgufFile& file, const ModelConfig& c,
                               const std::string& prefix) {
  RopeScaling r;
  r.kind = RopeScaling::Kind::longrope;
  for (const bool is_long : {false, true}) {
    const char* name = is_long ? "rope_factors_long.weight" : "rope_factors_short.weight";
    const GgufTensor& t = file.tensor(name);
    CHECK_FILE(t.dtype == DType::f32 && t.shape == Shape{c.rotary() / 2},
               "{}: tensor {} must be f32({}), a divisor for each frequency", file.path(), name,
               c.rotary() / 2);
    const auto values = to_floats(t.data, t.dtype);
    (is_long ? r.long_factor : r.short_factor).assign(values.begin(), values.end());
  }
  r.original_max_position =
      file.get_i64(prefix + "rope.scaling.original_context_length", c.max_position_embeddings);
  check_range(r.original_max_position, 1, kMaxContext, "rope.scaling.original_context_length",
              file.path());
  r.factor = std::max(1.0, static_cast<double>(c.max_position_embeddings) /
                               static_cast<double>(r.original_max_position));
  r.attention_factor = file.get_float(prefix + "rope.scaling.attn_factor", 0.0);
  return r;
}

RopeScaling scaling_from_gguf(const GgufFile& file, const ModelConfig& c,
                              const std::string& prefix) {
  RopeScaling r;
  if (file.find_tensor("rope_factors_long.weight")) return longrope_from_gguf(file, c, prefix);
  const auto key = [&](const char* rest) { return prefix + "rope.scaling." + rest; };
  const std::string_view type = file.get_string(key("type"), "none");
  if (type == "linear")
    r.kind = RopeScaling::Kind::linear;
  else if (type == "yarn")
    r.kind = RopeScaling::Kind::yarn;
  else
    CHECK_FILE(type == "none",
               "{}: {} is \"{}\"; none, linear and yarn are known (with another, results would be "
               "wrong: use a version of the model with one of these)",
               file.path(), key("type"), type);
  // Before rope.scaling.factor there was rope.scale_linear.
  const double old = file.get_float(prefix + "rope.scale_linear", 0.0);
  r.factor = file.get_float(key("factor"), old > 0 ? old : 1.0);
  if (r.factor == 0) r.factor = 1;  // written for "no scaling"
  if (r.kind == RopeScaling::Kind::none && r.factor != 1 && !file.find(key("type")))
    r.kind = RopeScaling::Kind::linear;
  if (r.kind == RopeScaling::Kind::none) return {};
  r.original_max_position = file.get_i64(key("original_context_length"), 0);
  r.beta_fast = file.get_float(key("yarn_beta_fast"), r.beta_fast);
  r.beta_slow = file.get_float(key("yarn_beta_slow"), r.beta_slow);
  // llama.cpp multiplies its own 0.1 ln(factor) + 1 by this.
  if (const double multiplier = file.get_float(key("attn_factor"), 1.0); multiplier != 1)
    r.attention_factor = multiplier * (0.1 * std::log(r.factor) + 1);
  return r;
}

std::int64_t uniform(const std::vector<std::int64_t>& per_layer, const std::string& key,
                     const std::string& source) {
  CHECK_FILE(
      std::all_of(per_layer.begin(), per_layer.end(), [&](auto n) { return n == per_layer[0]; }),
      "{}: {} differs between layers, which this program cannot run", source, key);
  return per_layer[0];
}

void check_scales(const ModelConfig& c, const std::string& source) {
  CHECK_FILE(c.local_rope_theta == 0 || (std::isfinite(c.local_rope_theta) &&
                                         c.local_rope_theta >= 1 && c.local_rope_theta <= 1e15),
             "{}: the rope theta of sliding layers is {}, 1 to 1e15 was expected", source,
             c.local_rope_theta);
  for (const double s : {c.embedding_scale, c.residual_scale, c.logit_scale})
    CHECK_FILE(std::isfinite(s) && s > 0 && s <= 1e9, "{}: a scale of {} is not a positive number",
               source, s);
  for (const double s : {c.attention_scale, c.attention_cap, c.logit_cap})
    CHECK_FILE(std::isfinite(s) && s >= 0 && s <= 1e9,
               "{}: a scale or cap of {} is negative or not a number", source, s);
}

void check_experts(const ModelConfig& c, const std::string& source) {
  const Experts& e = c.experts;
  if (e.count == 0) return;
  check_range(e.count, 1, 65536, "the number of experts", source);
  check_range(e.used, 1, std::min<std::int64_t>(e.count, 64),
              "the number of experts for each token", source);
  check_range(e.width, 1, kMaxSize, "the experts' feed-forward size", source);
}

}  // namespace

std::string_view name_of(RopeScaling::Kind kind) {
  static constexpr std::array<std::string_view, 6> names{"default", "linear", "dynamic",
                                                         "llama3",  "yarn",   "longrope"};
  return names[static_cast<std::size_t>(kind)];
}

double longrope_magnitude(const RopeScaling& r) {
  if (r.attention_factor > 0) return r.attention_factor;
  if (r.factor <= 1) return 1;
  return std::sqrt(1 + std::log(r.factor) / std::log(static_cast<double>(r.original_max_position)));
}

void validate(const ModelConfig& c, const std::string& source) {
  check_range(c.hidden_size, 1, kMaxSize, "hidden_size", source);
  check_range(c.intermediate_size, 1, kMaxSize, "intermediate_size", source);
  check_range(c.num_hidden_layers, 1, kMaxLayers, "num_hidden_layers", source);
  check_range(c.num_attention_heads, 1, 65536, "num_attention_heads", source);
  check_range(c.num_key_value_heads, 1, c.num_attention_heads, "num_key_value_heads", source);
  check_range(c.head_dim, 2, kMaxHeadDim, "head_dim", source);
  check_range(c.vocab_size, 1, kMaxVocab, "vocab_size", source);
  check_range(c.max_position_embeddings, 1, kMaxContext, "max_position_embeddings", source);
  CHECK_FILE(c.num_attention_heads % c.num_key_value_heads == 0,
             "{}: num_attention_heads {} is not a multiple of num_key_value_heads {}", source,
             c.num_attention_heads, c.num_key_value_heads);
  CHECK_FILE(c.head_dim % 2 == 0, "{}: head_dim is {}, an even number was expected", source,
             c.head_dim);
  CHECK_FILE(c.rms_norm_eps >= 0 && c.rms_norm_eps < 1,
             "{}: rms_norm_eps is {}, 0 to 1 was expected", source, c.rms_norm_eps);
  check_range(c.sliding_window, 0, kMaxContext, "sliding_window", source);
  CHECK_FILE(c.sliding_layers.empty() ||
                 c.sliding_layers.size() == static_cast<std::size_t>(c.num_hidden_layers),
             "{}: layer_types has {} items for {} layers", source, c.sliding_layers.size(),
             c.num_hidden_layers);
  const auto layers = static_cast<std::size_t>(c.num_hidden_layers);
  for (const auto* flags : {&c.unrotated_layers, &c.experts.dense_layers})
    CHECK_FILE(flags->empty() || flags->size() == layers,
               "{}: a list of layers has {} items for {} layers", source, flags->size(), layers);
  check_range(c.rotary(), 2, c.head_dim, "the rotated part of a head", source);
  CHECK_FILE(c.rotary() % 2 == 0, "{}: {} dimensions of a head turn, an even number was expected",
             source, c.rotary());
  check_scales(c, source);
  check_experts(c, source);
  for (const auto* ids : {&c.bos_token_ids, &c.eos_token_ids})
    for (const auto id : *ids)
      check_range(id, 0, c.vocab_size - 1, "a bos or eos token id", source);
  check_range(c.pad_token_id, -1, c.vocab_size - 1, "pad_token_id", source);
  check_rope(c, source);
}

namespace {

const Architecture& gguf_architecture(const GgufFile& file) {
  const std::string arch(file.get_string("general.architecture"));
  std::string names;
  for (const Architecture* a : all_architectures()) {
    if (!a->reads_gguf) continue;
    if (a->gguf == arch) return *a;
    names += fmt::format("{}{}", names.empty() ? "" : ", ", a->gguf);
  }
  fail(ErrorKind::bad_file, "{}: general.architecture is \"{}\"; this program knows {}",
       file.path(), arch.substr(0, 100), names);
}

void refuse_what_is_no_model(const GgufFile& file) {
  const auto type = file.get_string("general.type", "model");
  CHECK_FILE(type == "model", "{}: general.type is \"{}\", a model was expected{}", file.path(),
             type,
             type == "adapter" ? "; give the base model here and this file with --adapter" : "");
}

void sizes_from_gguf(ModelConfig& c, const GgufFile& file, const std::string& prefix) {
  const auto key = [&](const char* rest) { return prefix + rest; };
  c.num_hidden_layers = file.get_i64(key("block_count"));
  check_range(c.num_hidden_layers, 1, kMaxLayers, "block_count", file.path());
  const auto layers = static_cast<std::size_t>(c.num_hidden_layers);
  const auto layered = [&](const char* rest) {
    return uniform(file.get_per_layer(key(rest), layers), key(rest), file.path());
  };
  c.hidden_size = file.get_i64(key("embedding_length"));
  c.intermediate_size = layered("feed_forward_length");
  c.num_attention_heads = layered("attention.head_count");
  check_range(c.num_attention_heads, 1, 65536, "attention.head_count", file.path());
  c.num_key_value_heads = file.find(key("attention.head_count_kv"))
                              ? layered("attention.head_count_kv")
                              : c.num_attention_heads;
  c.head_dim = file.get_i64(key("attention.key_length"), c.hidden_size / c.num_attention_heads);
  CHECK_FILE(
      file.get_i64(key("attention.value_length"), c.head_dim) == c.head_dim,
      "{}: attention.value_length differs from the key length {}, which this program cannot run",
      file.path(), c.head_dim);
  const GgufTensor* embedding = file.find_tensor("token_embd.weight");
  const GgufValue* tokens = file.find("tokenizer.ggml.tokens");
  c.vocab_size =
      embedding && embedding->shape.rank == 2
          ? embedding->shape[0]
          : file.get_i64(key("vocab_size"), tokens ? static_cast<std::int64_t>(tokens->count) : 0);
  c.max_position_embeddings = file.get_i64(key("context_length"));
  c.rms_norm_eps = file.get_float(key("attention.layer_norm_rms_epsilon"));
}

void rope_from_gguf(ModelConfig& c, const GgufFile& file, const std::string& prefix,
                    const Architecture& a) {
  const std::int64_t turned = file.get_i64(prefix + "rope.dimension_count", c.head_dim);
  CHECK_FILE(turned == c.head_dim || (a.partial_rotary && turned >= 2 && turned < c.head_dim),
             "{}: rope.dimension_count differs from the head size {} (partial rotation), which "
             "this program cannot run",
             file.path(), c.head_dim);
  if (turned != c.head_dim) c.rotary_dim = turned;
  c.rope_theta = file.get_float(prefix + "rope.freq_base", a.defaults.rope_theta);
  check_range(c.head_dim, 2, kMaxHeadDim, "head_dim", file.path());
  c.rope_scaling = scaling_from_gguf(file, c, prefix);
}

void tokens_from_gguf(ModelConfig& c, const GgufFile& file) {
  if (file.find("tokenizer.ggml.bos_token_id"))
    c.bos_token_ids = {file.get_i64("tokenizer.ggml.bos_token_id")};
  for (const char* end :
       {"eos", "eot", "eom"}) {  // of text, of a turn, of a message: each ends generation
    const std::string name = fmt::format("tokenizer.ggml.{}_token_id", end);
    if (!file.find(name)) continue;
    const auto id = file.get_i64(name);
    auto& ids = c.eos_token_ids;
    if (std::find(ids.begin(), ids.end(), id) == ids.end()) ids.push_back(id);
  }
  c.pad_token_id = file.get_i64("tokenizer.ggml.padding_token_id", -1);
}

}  // namespace

ModelConfig model_config_from_gguf(const GgufFile& file) {
  ModelConfig c;
  const Architecture& a = gguf_architecture(file);
  refuse_what_is_no_model(file);
  const std::string prefix = std::string(a.gguf) + ".";
  c.family = a.name;
  c.name = file.get_string("general.name", "");
  if (a.describe) a.describe(c);
  sizes_from_gguf(c, file, prefix);
  rope_from_gguf(c, file, prefix, a);
  c.tie_word_embeddings = !file.find_tensor("output.weight");
  c.qkv_bias = file.find_tensor("blk.0.attn_q.bias") != nullptr;
  c.o_bias = file.find_tensor("blk.0.attn_output.bias") != nullptr;
  c.mlp_bias = file.find_tensor("blk.0.ffn_up.bias") != nullptr;
  c.sliding_window = file.get_i64(prefix + "attention.sliding_window", 0);
  if (a.from_gguf) a.from_gguf(c, file, prefix);
  CHECK_FILE(c.experts.count > 0 || file.get_i64(prefix + "expert_count", 0) == 0,
             "{}: a mixture of experts ({}expert_count is {}), which this program cannot run for "
             "this architecture",
             file.path(), prefix, file.get_i64(prefix + "expert_count", 0));
  c.architecture = architecture_of(c).hf_class;
  tokens_from_gguf(c, file);
  validate(c, file.path());
  return c;
}

void sliding_pattern_from_gguf(ModelConfig& c, const GgufFile& file, const std::string& prefix,
                               std::int64_t period) {
  const std::string key = prefix + "attention.sliding_window_pattern";
  const auto count = static_cast<std::size_t>(c.num_hidden_layers);
  std::vector<std::uint8_t> layers(count);
  const GgufValue* given = file.find(key);
  if (given && given->type == GgufType::array) {
    CHECK_FILE(given->item == GgufType::boolean && given->count >= count,
               "{}: {} must be {} booleans", file.path(), key, count);
    for (std::size_t i = 0; i < count; ++i) layers[i] = given->payload[i] != std::byte{0};
  } else {
    period = file.get_i64(key, period);
    check_range(period, 0, kMaxLayers, "attention.sliding_window_pattern", file.path());
    for (std::size_t i = 0; i < count; ++i)
      layers[i] = period == 0 || (static_cast<std::int64_t>(i) + 1) % period != 0;
  }
  set_sliding_layers(c, c.sliding_window, std::move(layers));
}

void sliding_pattern_to_gguf(const ModelConfig& c, GgufWriter& out, const std::string& prefix,
                             std::int64_t period) {
  if (c.sliding_window == 0) return;
  out.set_u32(prefix + "attention.sliding_window", static_cast<std::uint32_t>(c.sliding_window));
  bool usual = true;
  std::vector<std::byte> layers;
  for (std::int64_t i = 0; i < c.num_hidden_layers; ++i) {
    usual = usual && c.slides(i) == ((i + 1) % period != 0);
    layers.push_back(std::byte{c.slides(i)});
  }
  if (!usual)
    out.set_raw_array(prefix + "attention.sliding_window_pattern", GgufType::boolean, layers.size(),
                      layers);
}

void write_gguf_config(GgufWriter& out, const ModelConfig& c) {
  const Architecture& a = architecture_of(c);
  const std::string prefix = std::string(a.gguf) + ".";
  const auto u32 = [&](const char* rest, std::int64_t v) {
    out.set_u32(prefix + rest, static_cast<std::uint32_t>(v));
  };
  const auto f32 = [&](const char* rest, double v) {
    out.set_f32(prefix + rest, static_cast<float>(v));
  };
  out.set_string("general.architecture", a.gguf);
  out.set_string("general.type", "model");
  if (!c.name.empty()) out.set_string("general.name", c.name);
  u32("block_count", c.num_hidden_layers);
  u32("context_length", c.max_position_embeddings);
  u32("embedding_length", c.hidden_size);
  u32("feed_forward_length", c.intermediate_size);
  u32("attention.head_count", c.num_attention_heads);
  u32("attention.head_count_kv", c.num_key_value_heads);
  f32("attention.layer_norm_rms_epsilon", c.rms_norm_eps);
  if (c.head_dim * c.num_attention_heads != c.hidden_size) {
    u32("attention.key_length", c.head_dim);
    u32("attention.value_length", c.head_dim);
  }
  u32("vocab_size", c.vocab_size);
  u32("rope.dimension_count", c.rotary());
  f32("rope.freq_base", c.rope_theta);
  if (a.to_gguf) a.to_gguf(c, out, prefix);
  const auto& r = c.rope_scaling;
  if (r.kind == RopeScaling::Kind::longrope) {
    u32("rope.scaling.original_context_length", r.original_max_position);
    f32("rope.scaling.attn_factor", longrope_magnitude(r));
    return;
  }
  if (r.kind != RopeScaling::Kind::linear && r.kind != RopeScaling::Kind::yarn) return;
  out.set_string(prefix + "rope.scaling.type", std::string(name_of(r.kind)));
  f32("rope.scaling.factor", r.factor);
  if (r.original_max_position) u32("rope.scaling.original_context_length", r.original_max_position);
  if (r.kind != RopeScaling::Kind::yarn) return;
  f32("rope.scaling.yarn_beta_fast", r.beta_fast);
  f32("rope.scaling.yarn_beta_slow", r.beta_slow);
  if (r.attention_factor > 0)
    f32("rope.scaling.attn_factor", r.attention_factor / (0.1 * std::log(r.factor) + 1));
}

}  // namespace supersonic::io
