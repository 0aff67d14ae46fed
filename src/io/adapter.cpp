// PEFT adapter folders; see the header.
#include "io/adapter.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>

#include "core/error.h"
#include "io/adapter_json.h"
#include "io/float_convert.h"
#include "io/module_pattern.h"
#include "io/output_file.h"
#include "io/safetensors.h"

namespace supersonic::io {

namespace {

constexpr std::string_view kPrefix = "base_model.model.";
constexpr std::string_view kA = ".lora_A.weight", kB = ".lora_B.weight";
constexpr std::uint64_t kMaxConfig = std::uint64_t{16} << 20;

struct Pair {
  const SafeTensor *a = nullptr, *b = nullptr;
};

std::string module_of(std::string_view key, std::string_view suffix) {
  key.remove_suffix(suffix.size());
  if (key.starts_with(kPrefix)) key.remove_prefix(kPrefix.size());
  return std::string(key);
}

std::map<std::string, Pair> pair_up(const SafeTensors& file) {
  std::map<std::string, Pair> pairs;
  for (const auto& t : file.tensors()) {
    const bool is_a = t.name.ends_with(kA), is_b = t.name.ends_with(kB);
    CHECK_FILE(is_a || is_b,
               "{}: the tensor \"{}\" is not lora_A or lora_B of a linear layer, and cannot be "
               "applied here; merge the "
               "adapter with peft first",
               file.path(), t.name.substr(0, 200));
    (is_a ? pairs[module_of(t.name, kA)].a : pairs[module_of(t.name, kB)].b) = &file.get(t.name);
  }
  CHECK_FILE(!pairs.empty(), "{}: holds no adapter tensors", file.path());
  return pairs;
}

LoraModule make_module(const std::string& name, const Pair& pair, const std::string& source) {
  CHECK_FILE(pair.a && pair.b, "{}: module {} lacks its lora_{}", source, name.substr(0, 200),
             pair.a ? "B" : "A");
  const auto &a = *pair.a, &b = *pair.b;
  CHECK_FILE(a.shape.rank == 2 && b.shape.rank == 2 && a.shape[0] == b.shape[1] &&
                 a.shape.numel() > 0 && b.shape.numel() > 0,
             "{}: module {}: lora_A {} and lora_B {} do not make (rank, in) and (out, rank)",
             source, name.substr(0, 200), to_string(a.shape), to_string(b.shape));
  CHECK_FILE(is_float(a.dtype) && is_float(b.dtype),
             "{}: module {}: dtypes {} and {}, floats were expected", source, name.substr(0, 200),
             a.dtype_name, b.dtype_name);
  LoraModule m;
  m.name = name;
  m.rank = a.shape[0];
  m.in = a.shape[1];
  m.out = b.shape[0];
  m.a = to_floats(a.data, a.dtype);
  m.b = to_floats(b.data, b.dtype);
  return m;
}

// PEFT's two matrices for all experts: A (rank * experts, in), whose rows lie by expert, and B
// (out, rank * experts), whose columns lie by rank.
void take_experts(LoraModule& m, std::int64_t rank, const std::string& source) {
  CHECK_FILE(m.rank % rank == 0,
             "{}: {}: lora_A has {} rows, which are not whole experts of rank {}", source,
             m.name.substr(0, 200), m.rank, rank);
  m.experts = m.rank / rank;
  m.rank = rank;
  std::vector<float> b(m.b.size());
  const auto size = [](std::int64_t n) { return static_cast<std::size_t>(n); };
  for (std::int64_t e = 0; e < m.experts; ++e)
    for (std::int64_t o = 0; o < m.out; ++o)
      for (std::int64_t r = 0; r < rank; ++r)
        b[size((e * m.out + o) * rank + r)] = m.b[size((o * rank + r) * m.experts + e)];
  m.b = std::move(b);
}

std::vector<float> stored_b(const LoraModule& m) {
  if (!m.experts) return m.b;
  std::vector<float> b(m.b.size());
  const auto size = [](std::int64_t n) { return static_cast<std::size_t>(n); };
  for (std::int64_t e = 0; e < m.experts; ++e)
    for (std::int64_t o = 0; o < m.out; ++o)
      for (std::int64_t r = 0; r < m.rank; ++r)
        b[size((o * m.rank + r) * m.experts + e)] = m.b[size((e * m.out + o) * m.rank + r)];
  return b;
}

template <class T>
T value_for(const std::string& module, const std::vector<std::pair<std::string, T>>& patterns,
            T fallback) {
  for (const auto& [pattern, value] : patterns)
    if (matches_module(pattern, module)) return value;
  return fallback;
}

}  // namespace

double lora_scale(const LoraConfig& config, const LoraModule& module) {
  const auto rank = static_cast<double>(module.rank);
  return module.alpha / (config.use_rslora ? std::sqrt(rank) : rank);
}

LoraAdapter read_peft_adapter(const std::string& folder) {
  const std::filesystem::path dir(folder);
  const std::string config_path = (dir / "adapter_config.json").string();
  const std::string weights_path = (dir / "adapter_model.safetensors").string();
  LoraAdapter adapter;
  adapter.config = lora_config_from_json(read_file(config_path, kMaxConfig), config_path);
  CHECK_FILE(
      std::filesystem::exists(weights_path) || !std::filesystem::exists(dir / "adapter_model.bin"),
      "{}: has only a pickled adapter_model.bin, which is not read; save it with peft's "
      "safe_serialization",
      folder);
  const SafeTensors file = SafeTensors::open(weights_path);
  for (const auto& [name, pair] : pair_up(file)) {
    LoraModule m = make_module(name, pair, weights_path);
    const std::string parameter = targeted_parameter(adapter.config, name, weights_path);
    if (!parameter.empty()) m.name = parameter;
    const auto rank = value_for(m.name, adapter.config.rank_pattern, adapter.config.rank);
    if (!parameter.empty()) take_experts(m, rank, weights_path);
    CHECK_FILE(m.rank == rank, "{}: module {} has rank {}, {} says {}", weights_path,
               name.substr(0, 200), m.rank, config_path, rank);
    m.alpha = value_for(m.name, adapter.config.alpha_pattern, adapter.config.alpha);
    adapter.modules.push_back(std::move(m));
  }
  std::sort(adapter.modules.begin(), adapter.modules.end(),
            [](const auto& a, const auto& b) { return a.name < b.name; });
  return adapter;
}

void write_peft_adapter(const std::string& folder, const LoraAdapter& adapter, DType dtype) {
  CHECK(!adapter.modules.empty(), "{}: an adapter without modules", folder);
  make_directories(folder);
  const std::filesystem::path dir(folder);
  SafeTensorsWriter out((dir / "adapter_model").string(), UINT64_MAX);
  const auto key = [&](const LoraModule& m, std::string_view suffix) {
    return fmt::format("{}{}{}", kPrefix, m.experts ? wrapped_module(adapter, m) : m.name, suffix);
  };
  for (const auto& m : adapter.modules) {
    const std::int64_t ranks = m.rank * std::max<std::int64_t>(1, m.experts);
    out.declare(key(m, kA), {ranks, m.in}, dtype);
    out.declare(key(m, kB), {m.out, ranks}, dtype);
  }
  // Both files are complete before the first takes its name, so that a full disk leaves the old
  // pair.
  const std::string json = to_adapter_json(adapter);
  OutputFile config((dir / "adapter_config.json").string(), json.size());
  config.write(json);
  for (const auto& m : adapter.modules) {
    out.append(key(m, kA), from_floats(m.a, dtype));
    out.append(key(m, kB), from_floats(stored_b(m), dtype));
  }
  out.finish();
  config.commit();
}

}  // namespace supersonic::io
