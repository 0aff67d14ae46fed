// How PEFT names adapters of experts, which it keeps on parameters rather than on modules; see
// adapter_json.h.
#include <algorithm>
#include <set>

#include "core/error.h"
#include "io/adapter.h"
#include "io/adapter_json.h"

namespace supersonic::io {
namespace {

constexpr std::string_view kWrap = ".base_layer", kExperts = ".experts";

bool targets(const LoraConfig& config, const std::string& parameter) {
  return std::any_of(
      config.target_parameters.begin(), config.target_parameters.end(),
      [&](const std::string& t) { return parameter == t || parameter.ends_with("." + t); });
}

// "model.layers.0.mlp.experts" of "model.layers.0.mlp.experts.down_proj".
std::string owner_of(const std::string& parameter) {
  return parameter.substr(0, parameter.rfind('.'));
}

std::set<std::string> expert_modules(const LoraAdapter& adapter) {
  std::set<std::string> names;
  for (const LoraModule& m : adapter.modules)
    if (m.experts) names.insert(m.name);
  return names;
}

}  // namespace

std::string targeted_parameter(const LoraConfig& config, const std::string& module,
                               const std::string& source) {
  std::string owner = module;
  std::size_t depth = 0;
  for (; owner.ends_with(kWrap); ++depth) owner.resize(owner.size() - kWrap.size());
  if (!owner.ends_with(kExperts)) return {};
  std::vector<std::string> found;
  for (const std::string_view p : kExpertParameters)
    if (std::string name = fmt::format("{}.{}", owner, p); targets(config, name))
      found.push_back(std::move(name));
  if (found.empty()) return {};
  CHECK_FILE(depth < found.size(),
             "{}: '{}' is wrapped {} times, and target_parameters of adapter_config.json name {} "
             "of its parameters",
             source, module.substr(0, 200), depth, found.size());
  return found[found.size() - 1 - depth];
}

std::string wrapped_module(const LoraAdapter& adapter, const LoraModule& module) {
  const std::set<std::string> all = expert_modules(adapter);
  const std::string owner = owner_of(module.name);
  const bool both = std::ranges::all_of(kExpertParameters, [&](std::string_view p) {
    return all.contains(fmt::format("{}.{}", owner, p));
  });
  return both && module.name.ends_with(kExpertParameters[0]) ? owner + std::string(kWrap) : owner;
}

std::vector<std::string> target_parameters(const LoraAdapter& adapter) {
  const std::set<std::string> all = expert_modules(adapter);
  std::set<std::string> owners, last;
  for (const std::string& name : all) {
    owners.insert(owner_of(name));
    const std::size_t layer = name.rfind('.', owner_of(name).rfind('.') - 1);
    last.insert(layer == name.npos ? name : name.substr(layer + 1));
  }
  // By their last parts where these mean the same in each layer; they decide how often it is
  // wrapped.
  const bool alike = all.size() == owners.size() * last.size();
  return alike ? std::vector<std::string>(last.begin(), last.end())
               : std::vector<std::string>(all.begin(), all.end());
}

}  // namespace supersonic::io
