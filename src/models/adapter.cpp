#include "models/adapter.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "io/architecture.h"
#include "io/gguf.h"
#include "io/qk_layout.h"
#include "models/expert_adapters.h"

namespace supersonic::models {
namespace {

namespace fs = std::filesystem;
using io::QkLayout;

constexpr std::string_view kWeight = ".weight";
// PEFT's names in a model that reads images too: as transformers builds it today, and as it once
// did.
constexpr std::string_view kPlain = "model.", kTextPart = "model.language_model.",
                           kOldTextPart = "language_model.model.";

// What a module's name in a file says: the module as Hugging Face calls it, and how its q or k rows
// are ordered there.
struct Named {
  std::string module;
  QkLayout layout = QkLayout::half_split;
};

QkLayout gguf_layout(const Model& m) {
  return io::architecture_of(m.config).gguf_interleaved ? QkLayout::interleaved
                                                        : QkLayout::half_split;
}

Named named(const Model& model, std::string name) {
  if (name.ends_with(kWeight)) name.resize(name.size() - kWeight.size());
  for (const std::string_view part : {kTextPart, kOldTextPart})
    if (name.starts_with(part)) name.replace(0, part.size(), kPlain);
  if (!name.starts_with("blk.")) return {name, QkLayout::half_split};
  return {hf_name(model.config, name), gguf_layout(model)};
}

// Heads whose rows rotary embedding pairs; 0 for a module that is not rotated.
std::int64_t rotated_heads(const Model& model, const std::string& module) {
  if (module.ends_with(".q_proj")) return model.config.num_attention_heads;
  if (module.ends_with(".k_proj")) return model.config.num_key_value_heads;
  return 0;
}

QkLayout layout_of(const Model& model) {
  return model.interleaved_rope ? QkLayout::interleaved : QkLayout::half_split;
}

nn::Linear* find_linear(Model& model, const std::string& module) {
  for (nn::Linear* l : model.linears())
    if (l->name == module) return l;
  return nullptr;
}

// "q_proj", "k_proj", …: the last parts of the names, each once.
std::vector<std::string> adapted_modules(Model& model) {
  std::vector<std::string> names;
  const auto add = [&](const std::string& name, std::size_t begin) {
    const std::string last = name.substr(begin);
    if (std::find(names.begin(), names.end(), last) == names.end()) names.push_back(last);
  };
  for (const nn::Linear* l : model.linears()) add(l->name, l->name.rfind('.') + 1);
  for (const ExpertGroup& g : model.expert_groups()) add(g.name, g.name.find("experts."));
  return names;
}

nn::Linear& match(Model& model, const io::LoraModule& m, const std::string& module,
                  const std::string& source) {
  nn::Linear* l = find_linear(model, module);
  CHECK_FILE(l,
             "{}: the adapter changes '{}', which this model has not or which cannot be adapted "
             "here: {} of {} layers can",
             source, m.name.substr(0, 200), fmt::join(adapted_modules(model), ", "),
             model.layers.size());
  const Shape& w = l->weight->spec.shape;
  CHECK_FILE(!m.experts, "{}: module '{}' has a matrix for each of {} experts, the model one",
             source, m.name.substr(0, 200), m.experts);
  CHECK_FILE(m.out == w[0] && m.in == w[1],
             "{}: module '{}' adapts a matrix of {} x {}, the model's is {} x {}: the adapter "
             "belongs to another model",
             source, m.name.substr(0, 200), m.out, m.in, w[0], w[1]);
  CHECK_FILE(l->lora < 0, "{}: module '{}' is there twice", source, module);
  return *l;
}

// Of experts' matrices. Null where the module is none of the model's.
const ExpertGroup* match_experts(const std::vector<ExpertGroup>& groups, std::int64_t experts,
                                 const io::LoraModule& m, const std::string& source) {
  const auto found = std::ranges::find(groups, m.name, &ExpertGroup::name);
  if (found == groups.end()) return nullptr;
  const nn::Experts& first = *found->layers[0];
  const Shape& w = first.weight->spec.shape;
  const auto parts = static_cast<std::int64_t>(found->layers.size());
  const std::int64_t rows = parts * (w[0] / experts);
  CHECK_FILE(m.experts == experts && m.in == w[1] && m.out == rows,
             "{}: '{}' adapts {} matrices of {} x {}, the model has {} of {} x {}: the adapter "
             "belongs to another model",
             source, m.name.substr(0, 200), m.experts, m.out, m.in, experts, rows, w[1]);
  CHECK_FILE(first.lora < 0, "{}: module '{}' is there twice", source, m.name);
  return &*found;
}

void reorder(std::vector<float>& b, const Model& model, const std::string& module, QkLayout from,
             QkLayout to) {
  const std::int64_t heads = rotated_heads(model, module);
  if (heads && from != to) io::to_qk_layout(b, heads, model.config.head_dim, to);
}

}  // namespace

nn::LoraSet attach_adapter(Model& model, const io::LoraAdapter& adapter, const std::string& source,
                           bool train) {
  const std::vector<ExpertGroup> experts = model.expert_groups();
  for (nn::Linear* l : model.linears()) l->lora = -1;
  for (const ExpertGroup& g : experts) g.set_slot(-1);
  nn::LoraSet set;
  const GatheredModules gathered = gather_experts(model, adapter, source);
  for (const io::LoraModule* m : gathered.all) {
    const auto scale = static_cast<float>(io::lora_scale(adapter.config, *m));
    if (const ExpertGroup* g = match_experts(experts, model.config.experts.count, *m, source)) {
      const auto parts = static_cast<std::int64_t>(g->layers.size());
      g->set_slot(set.add(m->name, m->rank, m->in, m->out / parts, scale, m->experts, parts));
    } else {
      const std::string module = named(model, m->name).module;
      match(model, *m, module, source).lora = set.add(module, m->rank, m->in, m->out, scale);
    }
  }
  CHECK_FILE(!set.slots.empty(), "{}: the adapter is empty", source);
  set.allocate(train);
  for (std::size_t i = 0; i < gathered.all.size(); ++i) {
    const io::LoraModule& m = *gathered.all[i];
    const nn::LoraSlot& slot = set.slots[i];
    const auto values = set.values->values<float>();
    if (m.experts) {
      put_experts(model, m, slot, values);
      continue;
    }
    const Named n = named(model, m.name);
    std::vector<float> b = m.b;
    reorder(b, model, n.module, n.layout, layout_of(model));
    std::copy(m.a.begin(), m.a.end(), values.begin() + slot.a);
    std::copy(b.begin(), b.end(), values.begin() + slot.b);
  }
  return set;
}

io::LoraAdapter extract_adapter(const Model& model, const nn::LoraSet& set,
                                const io::LoraConfig& config) {
  io::LoraAdapter out;
  out.config = config;
  for (std::size_t i = 0; i < set.slots.size(); ++i) {
    const nn::LoraSlot& s = set.slots[i];
    const auto values = set.values->values<const float>();
    io::LoraModule m;
    m.name = set.names[i];
    m.rank = s.rank, m.in = s.in, m.out = s.out;
    const auto rank = static_cast<double>(s.rank);
    m.alpha = static_cast<double>(s.scale) * (config.use_rslora ? std::sqrt(rank) : rank);
    if (s.experts) {
      take_experts(model, s, values, m);
    } else {
      m.a.assign(values.begin() + s.a, values.begin() + s.a + s.rank * s.in);
      m.b.assign(values.begin() + s.b, values.begin() + s.b + s.out * s.rank);
      reorder(m.b, model, m.name, layout_of(model), QkLayout::half_split);
    }
    out.modules.push_back(std::move(m));
  }
  std::sort(out.modules.begin(), out.modules.end(),
            [](const auto& a, const auto& b) { return a.name < b.name; });
  if (out.config.rank == 0 && !out.modules.empty()) {
    out.config.rank = out.modules.front().rank;
    out.config.alpha = out.modules.front().alpha;
  }
  return out;
}

void write_adapter(const std::string& folder, const Model& model, io::LoraAdapter adapter,
                   DType dtype) {
  if (!model.config.text_part_of.empty())
    for (io::LoraModule& m : adapter.modules)
      if (m.name.starts_with(kPlain)) m.name.replace(0, kPlain.size(), kTextPart);
  io::write_peft_adapter(folder, adapter, dtype);
}

io::LoraAdapter read_adapter(const std::string& path, const Model& model) {
  CHECK_FILE(fs::exists(path),
             "{}: no such adapter: give a PEFT folder, a GGUF adapter or the output folder of a "
             "training run",
             path);
  if (fs::is_directory(path)) {
    for (const fs::path& folder : {fs::path(path), fs::path(path) / "adapter"})
      if (fs::exists(folder / "adapter_config.json")) return io::read_peft_adapter(folder.string());
    fail(ErrorKind::bad_file, "{}: holds no adapter_config.json, nor does its subfolder 'adapter'",
         path);
  }
  const io::GgufFile file = io::GgufFile::open(path);
  CHECK_FILE(io::is_gguf_adapter(file), "{}: is a model, not an adapter", path);
  io::GgufAdapter read = io::read_gguf_adapter(file);
  const std::string_view ours = io::architecture_of(model.config).gguf;
  CHECK_FILE(read.architecture == ours,
             "{}: is an adapter of architecture '{}', the model is of '{}'", path,
             read.architecture, ours);
  return std::move(read.adapter);
}

}  // namespace supersonic::models
