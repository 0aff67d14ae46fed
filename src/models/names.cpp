// Names of the modules that adapters change, in both worlds.
#include <optional>
#include <utility>

#include "core/error.h"
#include "io/architecture.h"
#include "models/model.h"

namespace supersonic::models {
namespace {

constexpr io::Role kLinears[] = {io::Role::q,   io::Role::k,       io::Role::v,
                                 io::Role::qkv, io::Role::o,       io::Role::gate,
                                 io::Role::up,  io::Role::gate_up, io::Role::down};
constexpr std::pair<const char*, const char*> kOuterNames[] = {
    {"model.embed_tokens", "token_embd"}, {"model.norm", "output_norm"}, {"lm_head", "output"}};

bool has(const io::ModelConfig& c, io::Role role) {
  switch (role) {
    case io::Role::qkv:
    case io::Role::gate_up:
      return c.fused;
    case io::Role::q:
    case io::Role::k:
    case io::Role::v:
    case io::Role::gate:
    case io::Role::up:
      return !c.fused;
    default:
      return true;
  }
}

// Splits "<prefix>N.<rest>"; nothing when the name has another form.
std::optional<std::pair<std::string, std::string>> split_layer(const std::string& name,
                                                               const std::string& prefix) {
  if (name.rfind(prefix, 0) != 0) return std::nullopt;
  const std::size_t dot = name.find('.', prefix.size());
  if (dot == std::string::npos) return std::nullopt;
  const std::string number = name.substr(prefix.size(), dot - prefix.size());
  if (number.empty() || number.find_first_not_of("0123456789") != std::string::npos)
    return std::nullopt;
  return std::pair{number, name.substr(dot + 1)};
}

}  // namespace

std::string gguf_name(const io::ModelConfig& config, const std::string& hf_module) {
  const io::Architecture& a = io::architecture_of(config);
  if (const auto layer = split_layer(hf_module, "model.layers."))
    for (const io::Role role : kLinears)
      if (has(config, role) && layer->second == a.name_of(role).hf)
        return fmt::format("blk.{}.{}", layer->first, a.name_of(role).gguf);
  for (const auto& [hf, gguf] : kOuterNames)
    if (hf_module == hf) return gguf;
  fail(ErrorKind::bad_file, "module '{}' has no place in a GGUF file of architecture {}", hf_module,
       a.gguf);
}

std::string hf_name(const io::ModelConfig& config, const std::string& gguf_module) {
  const io::Architecture& a = io::architecture_of(config);
  if (const auto layer = split_layer(gguf_module, "blk."))
    for (const io::Role role : kLinears)
      if (has(config, role) && layer->second == a.name_of(role).gguf)
        return fmt::format("model.layers.{}.{}", layer->first, a.name_of(role).hf);
  for (const auto& [hf, gguf] : kOuterNames)
    if (gguf_module == gguf) return hf;
  fail(ErrorKind::bad_file, "tensor '{}' belongs to no module of architecture {}", gguf_module,
       a.gguf);
}

}  // namespace supersonic::models
