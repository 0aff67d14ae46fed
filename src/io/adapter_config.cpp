// adapter_config.json: what is read, what is refused and why, and how ours is written.
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "core/error.h"
#include "io/adapter.h"
#include "io/adapter_json.h"
#include "io/json.h"
#include "io/json_fields.h"
#include "io/json_tree.h"

namespace supersonic::io {

namespace {

constexpr JsonLimits kLimits{
    .max_bytes = std::size_t{16} << 20, .max_depth = 32, .max_values = 1'000'000};
constexpr std::int64_t kMaxRank = 65536;

// Present and neither false, null, nor empty.
bool is_set(const JsonFields& f, const char* key) {
  const JsonView value = f.find(key);
  const bool structured = value.is_object() || value.is_array();
  return value && value.boolean() != false && !(structured && value.size() == 0);
}

void refuse_what_cannot_be_applied(const JsonFields& f) {
  const std::string type = f.string("peft_type").value_or("LORA");
  if (type != "LORA") f.bad("peft_type", "LORA");
  struct Refused {
    const char *key, *reason;
  };
  static constexpr Refused kRefused[] = {
      {"use_dora", "DoRA's magnitude vectors are not applied here; merge it with peft first"},
      {"use_qalora", "QA-LoRA's pooled inputs are not applied here; merge it with peft first"},
      {"modules_to_save", "whole saved modules are not applied here; merge it with peft first"},
      {"fan_in_fan_out",
       "transposed base layers (Conv1D) do not occur in the models that this program runs"},
      {"lora_bias", "a bias on lora_B is not applied here; merge it with peft first"},
      {"trainable_token_indices",
       "retrained token rows are not applied here; merge it with peft first"},
      {"layer_replication", "replicated layers are not built here"},
      {"alora_invocation_tokens",
       "adapters that start at an invocation token are not applied here"},
      {"arrow_config", "routed adapters are not applied here"}};
  for (const auto& r : kRefused)
    CHECK_FILE(!is_set(f, r.key), "{}: {} is set: {}", f.file(), r.key, r.reason);
  if (f.string("bias").value_or("none") != "none")
    f.bad("bias", "\"none\" (trained biases are not applied here)");
  const JsonView init = f.find("init_lora_weights");
  if (!init.is_string()) return;
  const std::string how = *init.text();
  for (const char* changes_base : {"pissa", "olora", "corda", "loftq"})
    CHECK_FILE(!how.starts_with(changes_base),
               "{}: init_lora_weights is \"{}\": such an adapter belongs to changed base weights; "
               "save it with peft's "
               "conversion to plain LoRA",
               f.file(), how.substr(0, 60));
}

void read_targets(LoraConfig& c, const JsonFields& f) {
  const JsonView value = f.find("target_modules");
  if (!value) return;
  if (value.is_string()) {
    c.target_pattern = *value.text();
    return;
  }
  if (!value.is_array()) f.bad("target_modules", "a list of names or a pattern");
  for (const JsonView& item : value.items()) {
    if (!item.is_string()) f.bad("target_modules", "a list of names");
    c.target_modules.push_back(*item.text());
  }
}

void read_target_parameters(LoraConfig& c, const JsonFields& f) {
  if (!is_set(f, "target_parameters")) return;
  const JsonView value = f.find("target_parameters");
  if (!value.is_array()) f.bad("target_parameters", "a list of names");
  for (const JsonView& item : value.items()) {
    if (!item.is_string()) f.bad("target_parameters", "a list of names");
    const std::string name(*item.text());
    CHECK_FILE(std::ranges::find(kExpertParameters, name.substr(name.rfind('.') + 1)) !=
                   std::end(kExpertParameters),
               "{}: target_parameters has \"{}\": of bare parameters, only experts' {} can be "
               "adapted here; merge the adapter with peft first",
               f.file(), name.substr(0, 200), fmt::join(kExpertParameters, " and "));
    c.target_parameters.push_back(name);
  }
}

std::string last_part(const std::string& name) {
  const auto dot = name.rfind('.');
  return dot == name.npos ? name : name.substr(dot + 1);
}

// A module path as an expression that matches only itself.
std::string literal(const std::string& name) {
  std::string out = "^";
  for (const char c : name) {
    if (c == '.') out += '\\';
    out += c;
  }
  return out;
}

}  // namespace

LoraConfig lora_config_from_json(std::string_view text, const std::string& source) {
  const JsonDocument root(text, source, kLimits);
  const JsonFields f(root, source);
  refuse_what_cannot_be_applied(f);
  LoraConfig c;
  c.rank = f.require_integer("r", 1, kMaxRank);
  c.alpha = f.real("lora_alpha", -1e9, 1e9).value_or(8.0);  // PEFT's default
  c.dropout = f.real("lora_dropout", 0, 1).value_or(0.0);
  c.use_rslora = f.boolean("use_rslora").value_or(false);
  c.base_model = f.string("base_model_name_or_path").value_or("");
  c.revision = f.string("revision").value_or("");
  c.task_type = f.string("task_type").value_or("");
  read_targets(c, f);
  read_target_parameters(c, f);
  if (f.has("rank_pattern")) {
    const JsonFields patterns = f.object("rank_pattern");
    for (const auto& [key, value] : patterns.value().members())
      c.rank_pattern.emplace_back(key, patterns.require_integer(key.c_str(), 1, kMaxRank));
  }
  if (f.has("alpha_pattern")) {
    const JsonFields patterns = f.object("alpha_pattern");
    for (const auto& [key, value] : patterns.value().members()) {
      const auto alpha = patterns.real(key.c_str(), -1e9, 1e9);
      if (!alpha) patterns.bad(key.c_str(), "a number");
      c.alpha_pattern.emplace_back(key, *alpha);
    }
  }
  return c;
}

std::string to_adapter_json(const LoraAdapter& adapter) {
  const LoraConfig& c = adapter.config;
  JsonTree j;
  j.set("peft_type", "LORA");
  j.set("task_type", c.task_type.empty() ? JsonTree() : JsonTree(c.task_type));
  j.set("base_model_name_or_path", c.base_model.empty() ? JsonTree() : JsonTree(c.base_model));
  j.set("revision", c.revision.empty() ? JsonTree() : JsonTree(c.revision));
  j.set("inference_mode", true);
  j.set("r", c.rank);
  // Whole alphas are written as integers, the usual form.
  const auto number = [](double v) {
    return v == std::floor(v) && std::abs(v) < 1e9 ? JsonTree(static_cast<std::int64_t>(v))
                                                   : JsonTree(v);
  };
  j.set("lora_alpha", number(c.alpha));
  j.set("lora_dropout", c.dropout);
  j.set("use_rslora", c.use_rslora);
  j.set("bias", "none");
  j.set("fan_in_fan_out", false);
  j.set("init_lora_weights", true);
  j.set("modules_to_save", nullptr);
  j.set("layers_to_transform", nullptr);
  j.set("layers_pattern", nullptr);
  std::set<std::string> targets;
  std::map<std::string, JsonTree> ranks, alphas;
  for (const auto& m : adapter.modules) {
    // The vision part beside a text part has modules of the same last names.
    const bool part = m.name.find("language_model.") != std::string::npos;
    if (!m.experts) targets.insert(part ? m.name : last_part(m.name));
    if (m.rank != c.rank) ranks[literal(m.name)] = m.rank;
    if (m.alpha != c.alpha) alphas[literal(m.name)] = number(m.alpha);
  }
  JsonTree names = JsonTree::array();
  for (const std::string& name : targets) names.push_back(name);
  j.set("target_modules", names);
  const std::vector<std::string> parameters = target_parameters(adapter);
  if (!parameters.empty()) {
    JsonTree list = JsonTree::array();
    for (const std::string& name : parameters) list.push_back(name);
    j.set("target_parameters", list);
  }
  j.set("rank_pattern", JsonTree::object(ranks));
  j.set("alpha_pattern", JsonTree::object(alphas));
  j.set("use_dora", false);
  return j.dump(2) + "\n";
}

}  // namespace supersonic::io
