// config.json of the Llama family, old and new spellings; see the header.
#include "io/hf_config.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "io/json.h"
#include "io/json_fields.h"
#include "io/output_file.h"

namespace supersonic::io {

namespace {

using nlohmann::json;

constexpr JsonLimits kLimits{
    .max_bytes = std::size_t{16} << 20, .max_depth = 32, .max_values = 1'000'000};
constexpr std::int64_t kMax = std::int64_t{1} << 31;

struct Known {
  const char *architecture, *model_type;
  Family family;
};
constexpr Known kKnown[] = {{"LlamaForCausalLM", "llama", Family::llama},
                            {"MistralForCausalLM", "mistral", Family::mistral},
                            {"Qwen2ForCausalLM", "qwen2", Family::qwen2}};

void set_family(ModelConfig& c, const JsonFields& f) {
  std::string asked;
  if (const json* list = f.find("architectures")) {
    if (!list->is_array() || list->empty() || !(*list)[0].is_string())
      f.bad("architectures", "a list of class names");
    asked = (*list)[0].get<std::string>();
  }
  const std::string type = f.string("model_type").value_or("");
  for (const auto& k : kKnown) {
    if (asked.empty() ? type != k.model_type : asked != k.architecture) continue;
    c.family = k.family;
    c.architecture = k.architecture;
    return;
  }
  std::string names;
  for (const auto& k : kKnown)
    names += fmt::format("{}{}", names.empty() ? "" : ", ", k.architecture);
  fail(ErrorKind::bad_file, "{}: the architecture is {}; this program knows {}", f.file(),
       asked.empty() ? (type.empty() ? "not named" : type.substr(0, 100)) : asked.substr(0, 100),
       names);
}

double yarn_attention(const JsonFields& r, double factor) {
  if (const auto given = r.real("attention_factor", 0, 1e6)) return *given;
  const auto m = r.real("mscale", 0, 1e6), all = r.real("mscale_all_dim", 0, 1e6);
  if (!m || !all || *m == 0 || *all == 0) return 0;
  const auto scale = [&](double mscale) {
    return factor <= 1 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
  };
  return scale(*m) / scale(*all);
}

RopeScaling read_scaling(const JsonFields& r, std::int64_t max_position) {
  using Kind = RopeScaling::Kind;
  RopeScaling s;
  const char* key = r.has("rope_type") ? "rope_type" : "type";
  const std::string type = r.string(key).value_or("default");
  const auto kinds = {Kind::none, Kind::linear, Kind::dynamic, Kind::llama3, Kind::yarn};
  const auto kind =
      std::find_if(kinds.begin(), kinds.end(), [&](Kind k) { return name_of(k) == type; });
  if (kind == kinds.end())
    r.bad(key,
          "default, linear, dynamic, llama3 or yarn (with any other, results would be wrong: use a "
          "version of the model with one of these)");
  s.kind = *kind;
  if (s.kind == Kind::none) return s;
  s.factor = r.real("factor", 1, 1e6).value_or(0);
  if (s.factor == 0) r.bad("factor", "a number from 1 to 1000000");
  s.original_max_position =
      r.integer("original_max_position_embeddings", 1, kMax).value_or(max_position);
  s.low_freq_factor = r.real("low_freq_factor", 0, 1e6).value_or(s.low_freq_factor);
  s.high_freq_factor = r.real("high_freq_factor", 0, 1e6).value_or(s.high_freq_factor);
  s.beta_fast = r.real("beta_fast", 0, 1e6).value_or(s.beta_fast);
  s.beta_slow = r.real("beta_slow", 0, 1e6).value_or(s.beta_slow);
  if (s.kind == Kind::yarn) {
    s.attention_factor = yarn_attention(r, s.factor);
    if (!r.boolean("truncate").value_or(true)) r.bad("truncate", "true");
  }
  return s;
}

// Newer files nest everything about rotation, theta included, inside rope_parameters.
void read_rope(ModelConfig& c, const JsonFields& f) {
  c.rope_theta = f.real("rope_theta", 1, 1e15).value_or(10000.0);
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    if (!f.has(key)) continue;
    const JsonFields r = f.object(key);
    for (const char* layer_type : {"full_attention", "sliding_attention"})
      if (r.has(layer_type)) r.bad(layer_type, "one rotation for all layers");
    if (const auto theta = r.real("rope_theta", 1, 1e15)) c.rope_theta = *theta;
    if (r.real("partial_rotary_factor", 0, 1).value_or(1) != 1) r.bad("partial_rotary_factor", "1");
    c.rope_scaling = read_scaling(r, c.max_position_embeddings);
  }
  if (f.real("partial_rotary_factor", 0, 1).value_or(1) != 1) f.bad("partial_rotary_factor", "1");
}

void read_sliding(ModelConfig& c, const JsonFields& f) {
  if (c.family == Family::llama) return;
  if (c.family == Family::qwen2 && !f.boolean("use_sliding_window").value_or(false)) return;
  // null means no window; a key that is not there means transformers' default.
  if (f.value().contains("sliding_window"))
    c.sliding_window = f.integer("sliding_window", 0, kMax).value_or(0);
  else
    c.sliding_window = 4096;
  if (c.sliding_window == 0) return;
  if (const json* types = f.find("layer_types")) {
    if (!types->is_array() || types->size() != static_cast<std::size_t>(c.num_hidden_layers))
      f.bad("layer_types", fmt::format("a list of {} names", c.num_hidden_layers));
    for (const auto& t : *types) {
      if (t != "sliding_attention" && t != "full_attention")
        f.bad("layer_types", "a list of sliding_attention and full_attention");
      c.sliding_layers.push_back(t == "sliding_attention");
    }
  } else if (c.family == Family::qwen2) {
    const auto first = f.integer("max_window_layers", 0, kMax).value_or(28);
    for (std::int64_t i = 0; i < c.num_hidden_layers; ++i) c.sliding_layers.push_back(i >= first);
  }
  const bool all =
      std::all_of(c.sliding_layers.begin(), c.sliding_layers.end(), [](auto s) { return s; });
  const bool none =
      std::none_of(c.sliding_layers.begin(), c.sliding_layers.end(), [](auto s) { return s; });
  if (all)
    c.sliding_layers.clear();
  else if (none)
    c.sliding_window = 0, c.sliding_layers.clear();
}

void read_sizes(ModelConfig& c, const JsonFields& f) {
  const auto size = [&](const char* key) { return f.require_integer(key, 1, kMax); };
  c.hidden_size = size("hidden_size");
  c.intermediate_size = size("intermediate_size");
  c.num_hidden_layers = f.require_integer("num_hidden_layers", 1, 4096);
  c.num_attention_heads = f.require_integer("num_attention_heads", 1, 65536);
  c.vocab_size = size("vocab_size");
  if (c.family == Family::llama)
    c.num_key_value_heads =
        f.integer("num_key_value_heads", 1, 65536).value_or(c.num_attention_heads);
  else
    c.num_key_value_heads = f.require_integer("num_key_value_heads", 1, 65536);
  if (const auto head = f.integer("head_dim", 1, kMax)) {
    c.head_dim = *head;
  } else {
    if (c.hidden_size % c.num_attention_heads)
      f.bad("hidden_size",
            fmt::format("a multiple of num_attention_heads {}", c.num_attention_heads));
    c.head_dim = c.hidden_size / c.num_attention_heads;
  }
  const std::int64_t usual = c.family == Family::llama     ? 2048
                             : c.family == Family::mistral ? 131072
                                                           : 32768;
  c.max_position_embeddings = f.integer("max_position_embeddings", 1, kMax).value_or(usual);
}

void read_biases(ModelConfig& c, const JsonFields& f) {
  if (c.family == Family::qwen2) {
    c.qkv_bias = true;
  } else if (c.family == Family::llama) {
    c.qkv_bias = c.o_bias = f.boolean("attention_bias").value_or(false);
    c.mlp_bias = f.boolean("mlp_bias").value_or(false);
  }
}

void refuse_what_is_missing_here(const JsonFields& f) {
  const std::string act = f.string("hidden_act").value_or("silu");
  if (act != "silu" && act != "swish") f.bad("hidden_act", "silu");
  if (!f.has("quantization_config")) return;
  const std::string method =
      f.object("quantization_config").string("quant_method").value_or("an unnamed method");
  fail(ErrorKind::bad_file,
       "{}: the weights are quantized with {}, which this program cannot read from a folder; use "
       "the 16-bit model or a "
       "GGUF file",
       f.file(), method.substr(0, 60));
}

json scaling_to_json(const ModelConfig& c) {
  const auto& s = c.rope_scaling;
  if (s.kind == RopeScaling::Kind::none) return nullptr;
  json r{{"rope_type", name_of(s.kind)}, {"factor", s.factor}};
  if (s.kind == RopeScaling::Kind::linear || s.kind == RopeScaling::Kind::dynamic) return r;
  if (s.original_max_position) r["original_max_position_embeddings"] = s.original_max_position;
  if (s.kind == RopeScaling::Kind::llama3) {
    r["low_freq_factor"] = s.low_freq_factor;
    r["high_freq_factor"] = s.high_freq_factor;
  } else {
    r["beta_fast"] = s.beta_fast;
    r["beta_slow"] = s.beta_slow;
    if (s.attention_factor > 0) r["attention_factor"] = s.attention_factor;
  }
  return r;
}

json ids_to_json(const std::vector<std::int64_t>& ids) {
  if (ids.empty()) return nullptr;
  if (ids.size() == 1) return ids[0];
  return ids;
}

}  // namespace

ModelConfig model_config_from_json(std::string_view text, const std::string& source) {
  const json root = parse_json(text, source, kLimits);
  const JsonFields f(root, source);
  ModelConfig c;
  set_family(c, f);
  refuse_what_is_missing_here(f);
  read_sizes(c, f);
  read_rope(c, f);
  read_sliding(c, f);
  read_biases(c, f);
  c.rms_norm_eps = f.real("rms_norm_eps", 0, 1).value_or(1e-6);
  c.tie_word_embeddings = f.boolean("tie_word_embeddings").value_or(false);
  c.bos_token_ids = f.integers("bos_token_id", 0, kMax);
  c.eos_token_ids = f.integers("eos_token_id", 0, kMax);
  // Some files pad with an id past the vocabulary, or with -1: both mean that there is no pad
  // token.
  c.pad_token_id = f.integer("pad_token_id", -1, kMax).value_or(-1);
  if (c.pad_token_id >= c.vocab_size) c.pad_token_id = -1;
  c.dtype = f.string(f.has("dtype") ? "dtype" : "torch_dtype").value_or("");
  c.name = f.string("_name_or_path").value_or("");
  validate(c, source);
  return c;
}

ModelConfig read_model_config(const std::string& folder) {
  const std::string path = (std::filesystem::path(folder) / "config.json").string();
  ModelConfig c = model_config_from_json(read_file(path, kLimits.max_bytes), path);
  const GenerationConfig g = read_generation_config(folder);
  if (!g.bos_token_ids.empty()) c.bos_token_ids = g.bos_token_ids;
  if (!g.eos_token_ids.empty()) c.eos_token_ids = g.eos_token_ids;
  validate(c, path);
  return c;
}

std::string to_config_json(const ModelConfig& c) {
  CHECK(c.family == Family::qwen2
            ? c.qkv_bias && !c.o_bias && !c.mlp_bias
            : c.qkv_bias == c.o_bias && (c.family == Family::llama || !(c.qkv_bias || c.mlp_bias)),
        "{} has no class in transformers with just these biases; save as GGUF instead",
        c.architecture);
  nlohmann::ordered_json j;
  j["architectures"] = {c.architecture};
  j["model_type"] = name_of(c.family);
  j["hidden_size"] = c.hidden_size;
  j["intermediate_size"] = c.intermediate_size;
  j["num_hidden_layers"] = c.num_hidden_layers;
  j["num_attention_heads"] = c.num_attention_heads;
  j["num_key_value_heads"] = c.num_key_value_heads;
  j["head_dim"] = c.head_dim;
  j["vocab_size"] = c.vocab_size;
  j["max_position_embeddings"] = c.max_position_embeddings;
  j["hidden_act"] = "silu";
  j["rms_norm_eps"] = c.rms_norm_eps;
  j["rope_theta"] = c.rope_theta;
  j["rope_scaling"] = scaling_to_json(c);
  j["tie_word_embeddings"] = c.tie_word_embeddings;
  if (c.family == Family::llama) {
    j["attention_bias"] = c.qkv_bias;
    j["mlp_bias"] = c.mlp_bias;
  } else {
    j["sliding_window"] = c.sliding_window ? json(c.sliding_window) : json(nullptr);
    if (c.family == Family::qwen2) j["use_sliding_window"] = c.sliding_window > 0;
    if (c.family == Family::qwen2 && c.sliding_window) {
      auto types = json::array();
      for (std::int64_t i = 0; i < c.num_hidden_layers; ++i)
        types.push_back(c.slides(i) ? "sliding_attention" : "full_attention");
      j["layer_types"] = std::move(types);
      // Before layer_types there was the number of layers that come before the sliding ones.
      std::int64_t first = 0;
      while (!c.slides(first)) ++first;
      j["max_window_layers"] = first;
    }
  }
  j["bos_token_id"] = ids_to_json(c.bos_token_ids);
  j["eos_token_id"] = ids_to_json(c.eos_token_ids);
  j["pad_token_id"] = c.pad_token_id >= 0 ? json(c.pad_token_id) : json(nullptr);
  if (!c.dtype.empty()) j["torch_dtype"] = c.dtype;
  j["use_cache"] = true;
  return j.dump(2) + "\n";
}

}  // namespace supersonic::io
