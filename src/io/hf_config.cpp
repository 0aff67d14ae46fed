// config.json, old and new spellings: what all architectures share. What one alone has is read and
// written by its hooks (io/architecture.h).
#include "io/hf_config.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>

#include "core/error.h"
#include "io/architecture.h"
#include "io/json.h"
#include "io/json_fields.h"
#include "io/json_tree.h"
#include "io/output_file.h"

namespace supersonic::io {

namespace {

constexpr JsonLimits kLimits{
    .max_bytes = std::size_t{16} << 20, .max_depth = 32, .max_values = 1'000'000};
constexpr std::int64_t kMax = std::int64_t{1} << 31;

const Architecture& named_architecture(ModelConfig& c, const JsonFields& f) {
  std::string asked;
  if (const JsonView list = f.find("architectures")) {
    if (list.size() == 0 || !list.is_array() || !list.items()[0].is_string())
      f.bad("architectures", "a list of class names");
    asked = *list.items()[0].text();
  }
  const std::string type = f.string("model_type").value_or("");
  std::string names;
  for (const Architecture* a : all_architectures()) {
    names += fmt::format("{}{}", names.empty() ? "" : ", ", a->hf_class);
    if (!a->outer_class.empty()) names += fmt::format(", {}", a->outer_class);
    const bool outer = !a->outer_class.empty() &&
                       (asked.empty() ? type == a->outer_type : asked == a->outer_class);
    if (!outer && (asked.empty() ? type != a->model_type : asked != a->hf_class)) continue;
    if (outer) c.text_part_of = a->outer_class;
    c.family = a->name;
    c.architecture = a->hf_class;
    return *a;
  }
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

std::vector<double> divisors(const JsonFields& r, const char* key, std::int64_t count) {
  const JsonView list = r.find(key);
  const auto expected = [&] { return fmt::format("a list of {} positive numbers", count); };
  if (!list.is_array() || static_cast<std::int64_t>(list.size()) != count) r.bad(key, expected());
  std::vector<double> result;
  for (const JsonView& item : list.items()) {
    const auto x = item.number();
    if (!x || !(*x > 0 && *x <= 1e9)) r.bad(key, expected());
    result.push_back(*x);
  }
  return result;
}

// Where the original context stands beside the scaling, it wins (Phi-3).
std::int64_t original_context(const JsonFields& r, const JsonFields& f, std::int64_t max_position) {
  if (const auto outer = f.integer("original_max_position_embeddings", 1, kMax)) return *outer;
  return r.integer("original_max_position_embeddings", 1, kMax).value_or(max_position);
}

void read_longrope(RopeScaling& s, const ModelConfig& c, const JsonFields& r) {
  s.short_factor = divisors(r, "short_factor", c.rotary() / 2);
  s.long_factor = divisors(r, "long_factor", c.rotary() / 2);
  s.factor = r.real("factor", 1, 1e6)
                 .value_or(std::max(1.0, static_cast<double>(c.max_position_embeddings) /
                                             static_cast<double>(s.original_max_position)));
  s.attention_factor = r.real("attention_factor", 0, 1e6).value_or(0);
}

RopeScaling read_scaling(const ModelConfig& c, const JsonFields& r, const JsonFields& f) {
  using Kind = RopeScaling::Kind;
  RopeScaling s;
  const char* key = r.has("rope_type") ? "rope_type" : "type";
  std::string type = r.string(key).value_or("default");
  if (c.family == "phi3" && (type == "su" || type == "yarn")) type = "longrope";  // its older names
  const auto kinds = {Kind::none,   Kind::linear, Kind::dynamic,
                      Kind::llama3, Kind::yarn,   Kind::longrope};
  const auto kind =
      std::find_if(kinds.begin(), kinds.end(), [&](Kind k) { return name_of(k) == type; });
  if (kind == kinds.end())
    r.bad(key,
          "default, linear, dynamic, llama3, yarn or longrope (with any other, results would be "
          "wrong: use a version of the model with one of these)");
  s.kind = *kind;
  if (s.kind == Kind::none) return s;
  s.original_max_position = original_context(r, f, c.max_position_embeddings);
  if (s.kind == Kind::longrope) {
    read_longrope(s, c, r);
    return s;
  }
  s.factor = r.real("factor", 1, 1e6).value_or(0);
  if (s.factor == 0) r.bad("factor", "a number from 1 to 1000000");
  s.low_freq_factor = r.real("low_freq_factor", 0, 1e6).value_or(s.low_freq_factor);
  s.high_freq_factor = r.real("high_freq_factor", 0, 1e6).value_or(s.high_freq_factor);
  s.beta_fast = r.real("beta_fast", 0, 1e6).value_or(s.beta_fast);
  s.beta_slow = r.real("beta_slow", 0, 1e6).value_or(s.beta_slow);
  if (s.kind == Kind::yarn) {
    s.attention_factor = yarn_attention(r, s.factor);
    s.truncate = r.boolean("truncate").value_or(true);
  }
  return s;
}

void read_partial_rotation(ModelConfig& c, const JsonFields& f, const Architecture& a) {
  const auto part = f.real("partial_rotary_factor", 0, 1);
  if (!part || *part == 1) return;
  if (!a.partial_rotary) f.bad("partial_rotary_factor", "1");
  c.rotary_dim = static_cast<std::int64_t>(static_cast<double>(c.head_dim) * *part);
  if (c.rotary_dim < 2 || c.rotary_dim % 2)
    f.bad("partial_rotary_factor", "an even number of dimensions");
}

// Newer files nest everything about rotation, theta included, inside rope_parameters; those whose
// layers turn in two ways nest it once more by the layers' type.
void read_rope(ModelConfig& c, const JsonFields& f, const Architecture& a) {
  c.rope_theta = f.real("rope_theta", 1, 1e15).value_or(a.defaults.rope_theta);
  c.local_rope_theta =
      f.real("rope_local_base_freq", 1, 1e15).value_or(a.defaults.local_rope_theta);
  read_partial_rotation(c, f, a);
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    if (!f.has(key)) continue;
    const JsonFields r = f.object(key);
    const bool nested = r.has("full_attention") || r.has("sliding_attention");
    if (nested && !a.defaults.local_rope_theta)
      r.bad(r.has("full_attention") ? "full_attention" : "sliding_attention",
            "one rotation for all layers");
    if (nested && r.has("sliding_attention")) {
      const JsonFields local = r.object("sliding_attention");
      c.local_rope_theta = local.real("rope_theta", 1, 1e15).value_or(c.local_rope_theta);
      if (local.string("rope_type").value_or("default") != "default")
        local.bad("rope_type", "default");
    }
    if (nested && !r.has("full_attention")) continue;
    const JsonFields full = nested ? r.object("full_attention") : r;
    if (const auto theta = full.real("rope_theta", 1, 1e15)) c.rope_theta = *theta;
    read_partial_rotation(c, full, a);
    c.rope_scaling = read_scaling(c, full, f);
  }
}

void read_sizes(ModelConfig& c, const JsonFields& f, const ConfigDefaults& defaults) {
  const auto size = [&](const char* key) { return f.require_integer(key, 1, kMax); };
  const auto stated = [&](const char* key, std::int64_t high, std::int64_t otherwise) {
    return otherwise ? f.integer(key, 1, high).value_or(otherwise)
                     : f.require_integer(key, 1, high);
  };
  c.hidden_size = size("hidden_size");
  c.intermediate_size = size("intermediate_size");
  c.num_hidden_layers = f.require_integer("num_hidden_layers", 1, 4096);
  c.num_attention_heads = stated("num_attention_heads", 65536, defaults.heads);
  c.vocab_size = stated("vocab_size", kMax, defaults.vocab);
  if (defaults.kv_heads)
    c.num_key_value_heads =
        f.integer("num_key_value_heads", 1, 65536).value_or(c.num_attention_heads);
  else
    c.num_key_value_heads = stated("num_key_value_heads", 65536, defaults.groups);
  if (const auto head = f.integer("head_dim", 1, kMax)) {
    c.head_dim = *head;
  } else if (defaults.head_dim) {
    c.head_dim = defaults.head_dim;
  } else {
    if (c.hidden_size % c.num_attention_heads)
      f.bad("hidden_size",
            fmt::format("a multiple of num_attention_heads {}", c.num_attention_heads));
    c.head_dim = c.hidden_size / c.num_attention_heads;
  }
  c.max_position_embeddings =
      f.integer("max_position_embeddings", 1, kMax).value_or(defaults.max_position);
}

// gpt-oss's experts are read as the MXFP4 blocks that they are (models/fused_experts.h).
void refuse_quantized(const JsonFields& f, const Architecture& a) {
  if (!f.has("quantization_config")) return;
  const std::string method =
      f.object("quantization_config").string("quant_method").value_or("an unnamed method");
  if (method == "mxfp4" && a.fused_experts) return;
  fail(ErrorKind::bad_file,
       "{}: the weights are quantized with {}, which this program cannot read from a folder; use "
       "the 16-bit model or a "
       "GGUF file",
       f.file(), method.substr(0, 60));
}

JsonTree scaling_to_json(const ModelConfig& c) {
  const auto& s = c.rope_scaling;
  if (s.kind == RopeScaling::Kind::none) return nullptr;
  std::map<std::string, JsonTree> r{{"rope_type", name_of(s.kind)}, {"factor", s.factor}};
  if (s.kind == RopeScaling::Kind::linear || s.kind == RopeScaling::Kind::dynamic)
    return JsonTree::object(r);
  if (s.original_max_position) r["original_max_position_embeddings"] = s.original_max_position;
  if (s.kind == RopeScaling::Kind::llama3) {
    r["low_freq_factor"] = s.low_freq_factor;
    r["high_freq_factor"] = s.high_freq_factor;
    return JsonTree::object(r);
  }
  if (s.kind == RopeScaling::Kind::longrope) {
    r["short_factor"] = JsonTree::array(s.short_factor);
    r["long_factor"] = JsonTree::array(s.long_factor);
  } else {
    r["beta_fast"] = s.beta_fast;
    r["beta_slow"] = s.beta_slow;
    if (!s.truncate) r["truncate"] = false;
  }
  if (s.attention_factor > 0) r["attention_factor"] = s.attention_factor;
  return JsonTree::object(r);
}

// The smallest fraction of a head whose product with its size is not less than what turns.
double rotary_part(const ModelConfig& c) {
  const auto size = static_cast<double>(c.head_dim);
  double part = static_cast<double>(c.rotary()) / size;
  while (static_cast<std::int64_t>(size * part) < c.rotary()) part = std::nextafter(part, 1.0);
  return part;
}

JsonTree ids_to_json(const std::vector<std::int64_t>& ids) {
  if (ids.empty()) return nullptr;
  if (ids.size() == 1) return ids[0];
  return JsonTree::array(ids);
}

}  // namespace

void require_activation(const JsonFields& f, const char* key,
                        std::initializer_list<std::string_view> expected) {
  const auto act = f.string(key);
  if (act && std::find(expected.begin(), expected.end(), *act) == expected.end())
    f.bad(key, *expected.begin());
}

void require_false(const JsonFields& f, const char* key) {
  if (f.boolean(key).value_or(false)) f.bad(key, "false");
}

void set_sliding_layers(ModelConfig& c, std::int64_t window, std::vector<std::uint8_t> layers) {
  const auto slides = [](auto s) { return s != 0; };
  c.sliding_window = window, c.sliding_layers = std::move(layers);
  if (window == 0 || std::none_of(c.sliding_layers.begin(), c.sliding_layers.end(), slides))
    c.sliding_window = 0, c.sliding_layers.clear();
  else if (std::all_of(c.sliding_layers.begin(), c.sliding_layers.end(), slides))
    c.sliding_layers.clear();
}

void read_sliding_layers(ModelConfig& c, const JsonFields& f, std::int64_t window,
                         const std::function<bool(std::int64_t)>& otherwise) {
  std::vector<std::uint8_t> layers;
  const JsonView types = f.find("layer_types");
  const std::vector<JsonView> names = types.items();
  if (types && (!types.is_array() || types.size() != static_cast<std::size_t>(c.num_hidden_layers)))
    f.bad("layer_types", fmt::format("a list of {} names", c.num_hidden_layers));
  for (std::int64_t i = 0; i < c.num_hidden_layers; ++i) {
    if (!types) {
      layers.push_back(otherwise(i));
      continue;
    }
    const auto t = names[static_cast<std::size_t>(i)].text();
    if (t != "sliding_attention" && t != "full_attention")
      f.bad("layer_types", "a list of sliding_attention and full_attention");
    layers.push_back(t == "sliding_attention");
  }
  set_sliding_layers(c, window, std::move(layers));
}

void write_layer_types(const ModelConfig& c, JsonTree& j) {
  auto types = JsonTree::array();
  for (std::int64_t i = 0; i < c.num_hidden_layers; ++i)
    types.push_back(c.slides(i) ? "sliding_attention" : "full_attention");
  j.set("layer_types", std::move(types));
}

ModelConfig model_config_from_json(std::string_view text, const std::string& source) {
  const JsonDocument root(text, source, kLimits);
  const JsonFields whole(root, source);
  ModelConfig c;
  const Architecture& a = named_architecture(c, whole);
  // What reads images too has the text model's fields apart, and these few for both.
  const JsonFields f = c.text_part_of.empty() ? whole : whole.object("text_config");
  refuse_quantized(whole, a);
  refuse_quantized(f, a);
  if (a.describe) a.describe(c);
  read_sizes(c, f, a.defaults);
  read_rope(c, f, a);
  c.rms_norm_eps = f.real("rms_norm_eps", 0, 1).value_or(a.defaults.rms_norm_eps);
  const auto tied = whole.boolean("tie_word_embeddings");
  c.tie_word_embeddings = tied ? *tied : f.boolean("tie_word_embeddings").value_or(a.defaults.tied);
  if (a.from_json) a.from_json(c, f);
  const auto ids = [&](const char* key) {
    return (whole.has(key) ? whole : f).integers(key, 0, kMax);
  };
  c.bos_token_ids = ids("bos_token_id"), c.eos_token_ids = ids("eos_token_id");
  // Some files pad with an id past the vocabulary, or with -1: both mean that there is no pad
  // token.
  c.pad_token_id = f.integer("pad_token_id", -1, kMax).value_or(-1);
  if (c.pad_token_id >= c.vocab_size) c.pad_token_id = -1;
  c.dtype = whole.string(whole.has("dtype") ? "dtype" : "torch_dtype").value_or("");
  c.name = whole.string("_name_or_path").value_or("");
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
  const Architecture& a = architecture_of(c);
  JsonTree j;
  j.set("architectures", JsonTree::array({a.hf_class}));
  j.set("model_type", a.model_type);
  j.set("hidden_size", c.hidden_size);
  j.set("intermediate_size", c.intermediate_size);
  j.set("num_hidden_layers", c.num_hidden_layers);
  j.set("num_attention_heads", c.num_attention_heads);
  j.set("num_key_value_heads", c.num_key_value_heads);
  j.set("head_dim", c.head_dim);
  j.set("vocab_size", c.vocab_size);
  j.set("max_position_embeddings", c.max_position_embeddings);
  if (c.gate == Gate::silu) j.set("hidden_act", "silu");
  j.set("rms_norm_eps", c.rms_norm_eps);
  j.set("rope_theta", c.rope_theta);
  j.set("rope_scaling", scaling_to_json(c));
  if (c.rotary() != c.head_dim) j.set("partial_rotary_factor", rotary_part(c));
  j.set("tie_word_embeddings", c.tie_word_embeddings);
  if (a.to_json) a.to_json(c, j);
  j.set("bos_token_id", ids_to_json(c.bos_token_ids));
  j.set("eos_token_id", ids_to_json(c.eos_token_ids));
  j.set("pad_token_id", c.pad_token_id >= 0 ? JsonTree(c.pad_token_id) : nullptr);
  if (!c.dtype.empty()) j.set("torch_dtype", c.dtype);
  j.set("use_cache", true);
  return j.dump(2) + "\n";
}

}  // namespace supersonic::io
