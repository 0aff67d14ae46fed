#include "train/parameters.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <thread>
#include <unordered_map>

#include <fmt/ranges.h>

#include "core/machine.h"
#include "core/rng.h"
#include "io/float_convert.h"
#include "io/mapped_file.h"
#include "models/parts.h"

namespace supersonic::train {
namespace {

constexpr std::int64_t kAlign = 256;  // elements: a block of 8-bit moments belongs to one weight

constexpr const char *kAllLinear = "all-linear", *kExperts = "experts";

// The targets, and which of them named something.
struct Targets {
  std::vector<std::string> names;
  std::vector<bool> used = std::vector<bool>(names.size());

  // Whether a target is a word for all of that kind, or the end of the module's name.
  bool match(const std::string& module, const char* all) {
    bool any = false;
    for (std::size_t i = 0; i < names.size(); ++i)
      if (names[i] == all || module.ends_with(names[i])) any = used[i] = true;
    return any;
  }
};

// What can be targeted, the last parts of names, each once.
std::string targetable(models::Model& model) {
  std::vector<std::string> names = {kAllLinear};
  const auto add = [&](std::string name) {
    if (std::find(names.begin(), names.end(), name) == names.end())
      names.push_back(std::move(name));
  };
  for (const nn::Linear* l : model.linears()) add(l->name.substr(l->name.rfind('.') + 1));
  for (const models::ExpertGroup& g : model.expert_groups()) {
    add(kExperts);
    add(g.name.substr(g.name.find("experts.")));
  }
  return fmt::format("{}", fmt::join(names, ", "));
}

enum class Kind { matrix, vector };

// f(kind, storage) of each weight, a tied head's a second time.
template <class M, class F>
void for_each_weight(M& model, F&& f) {
  models::for_each_part(model, [&](const models::PartInfo& info, auto& part) {
    if constexpr (requires { part.weight; }) {
      f(Kind::matrix, part.weight);
      if (part.bias) f(Kind::vector, part.bias);
    } else {
      f(info.kind == models::PartKind::matrix ? Kind::matrix : Kind::vector, part);
    }
  });
}

StorageRef without_memory(const Spec& spec, std::string name) {
  return Storage::external(spec, {}, std::move(name));
}

StorageRef part_of(const StorageRef& array, const Parameters::Slot& slot, const std::string& name) {
  Planes planes;
  if (array->as<void>())
    planes.data[0] =
        array->as<std::byte>() + slot.offset * static_cast<std::int64_t>(size_of(slot.spec.dtype));
  StorageRef part = Storage::external(slot.spec, planes, name, [array] {});
  part->place = array->place;
  return part;
}

void check_trainable(const models::Model& model) {
  for (std::size_t i = 0; i < model.layers.size(); ++i)
    if (model.config.has_experts(static_cast<std::int64_t>(i)) || model.layers[i].sinks)
      fail(ErrorKind::usage,
           "{}: all weights of a mixture of experts, or of attention with sinks, cannot be trained "
           "here: train an adapter (--method lora)",
           model.path);
  for (const StorageRef& s : weights_of(model))
    if (s->spec.format)
      fail(ErrorKind::usage,
           "{}: '{}' is quantized to {}, and all weights can be trained in a 16- or 32-bit file "
           "alone: pull that one (OWNER/NAME without a "
           "quantized type), or train an adapter (--method lora)",
           model.path, s->name, s->spec.format->name);
}

// The groups, each with the elements that it has so far.
struct Layout {
  Parameters parameters;
  std::vector<std::int64_t> sizes;

  std::size_t group_of(Kind kind, DType type) {
    const char* name = kind == Kind::vector  ? "vectors"
                       : type == DType::bf16 ? "matrices"
                                             : "matrices_f32";
    auto& groups = parameters.groups;
    for (std::size_t g = 0; g < groups.size(); ++g)
      if (groups[g].name == name) return g;
    groups.push_back({.name = name,
                      .prefix = std::string(name) + ".",
                      .values = {},
                      .gradients = {},
                      .decay = kind == Kind::matrix,
                      .coded = kind == Kind::matrix});
    sizes.push_back(0);
    return groups.size() - 1;
  }

  void add(Kind kind, const Spec& there) {
    Spec spec = there;
    if (spec.dtype == DType::f16) spec.dtype = DType::bf16;
    const std::size_t g = group_of(kind, spec.dtype);
    parameters.slots.push_back({g, sizes[g], spec});
    sizes[g] += (spec.numel() + kAlign - 1) / kAlign * kAlign;
  }
};

// from's values as the slot's type.
void take_values(const Storage& to, const Storage& from) {
  if (to.spec.dtype == from.spec.dtype) {
    std::memcpy(to.as<void>(), from.as<void>(), from.bytes);
  } else {
    const auto* values = from.as<f16>();
    auto* out = to.as<bf16>();
    for (std::int64_t i = 0; i < from.spec.numel(); ++i)
      out[i] = bf16(static_cast<float>(values[i]));
  }
}

// f(i) for each of `count`, each by one of the threads that this process may use.
template <class F>
void share_out(std::size_t count, F f) {
  const auto threads = std::min(count, static_cast<std::size_t>(usable_threads()));
  std::vector<std::jthread> all;
  for (std::size_t first = 0; first < threads; ++first)
    all.emplace_back([f, first, threads, count] {
      for (std::size_t i = first; i < count; i += threads) f(i);
    });
}

// Kaiming with a = sqrt 5, as PEFT: uniform in ±1/sqrt(in).
void draw_a(const nn::LoraSet& set, std::uint64_t seed, std::size_t i) {
  const nn::LoraSlot& s = set.slots[i];
  Rng rng(seed, 0, rng_site("lora A"), static_cast<std::uint32_t>(i));
  const double bound = 1.0 / std::sqrt(static_cast<double>(s.in));
  float* const a = set.values->as<float>() + s.a;
  for (std::int64_t k = 0; k < s.a_size(); ++k)
    a[k] = static_cast<float>((2 * rng.uniform() - 1) * bound);
}

}  // namespace

Parameters::Parameters(nn::LoraSet& set) : lora(&set) {
  groups.push_back(
      {.name = "lora", .prefix = "", .values = set.values, .gradients = set.gradients});
}

std::size_t Parameters::bytes() const {
  std::size_t n = 0;
  for (const Group& g : groups) n += g.values->bytes;
  return n;
}

nn::LoraSet make_lora(models::Model& model, const LoraOptions& options, bool train) {
  nn::LoraSet set;
  const float scale = static_cast<float>(options.alpha / static_cast<double>(options.rank));
  Targets targets{options.targets.empty() ? std::vector<std::string>{kAllLinear} : options.targets};
  for (nn::Linear* l : model.linears()) {
    const Shape& w = l->weight->spec.shape;
    l->lora =
        targets.match(l->name, kAllLinear) ? set.add(l->name, options.rank, w[1], w[0], scale) : -1;
  }
  const std::int64_t experts = model.config.experts.count;
  for (const models::ExpertGroup& g : model.expert_groups()) {
    const Shape& w = g.layers[0]->weight->spec.shape;
    g.set_slot(targets.match(g.name, kExperts)
                   ? set.add(g.name, options.rank, w[1], w[0] / experts, scale, experts,
                             static_cast<std::int64_t>(g.layers.size()))
                   : -1);
  }
  for (std::size_t i = 0; i < targets.names.size(); ++i)
    if (!targets.used[i])
      fail(ErrorKind::usage, "no layer of this model matches the target '{}': choose of {}",
           targets.names[i], targetable(model));
  set.allocate(train);
  // Each matrix has a stream of its own, so who draws it does not matter; one thread would take 0.2
  // s for 8 billion weights.
  share_out(set.slots.size(), [&](std::size_t i) { draw_a(set, options.seed, i); });
  return set;
}

std::vector<StorageRef> weights_of(const models::Model& model) {
  std::vector<StorageRef> all;
  std::unordered_map<const Storage*, bool> seen;
  for_each_weight(model, [&](Kind, const StorageRef& s) {
    if (!seen.emplace(s.get(), true).second) return;
    all.push_back(s);
  });
  return all;
}

Parameters plan_weights(const models::Model& model) {
  check_trainable(model);
  Layout layout;
  std::unordered_map<const Storage*, bool> seen;
  for_each_weight(model, [&](Kind kind, const StorageRef& s) {
    if (seen.emplace(s.get(), true).second) layout.add(kind, s->spec);
  });
  for (std::size_t g = 0; g < layout.sizes.size(); ++g) {
    Parameters::Group& group = layout.parameters.groups[g];
    const DType type = group.name == "matrices" ? DType::bf16 : DType::f32;
    group.values = without_memory({Shape{layout.sizes[g]}, type, nullptr}, group.name);
  }
  return std::move(layout.parameters);
}

void take_weights(models::Model& model, Parameters& parameters) {
  std::vector<StorageRef> arrays;
  for (Parameters::Group& g : parameters.groups) {
    g.values = Storage::make(g.values->spec, g.name);
    arrays.push_back(g.values);
  }
  models::Model taken = with_weights(model, parameters, arrays);
  const auto from = weights_of(model), to = weights_of(taken);
  constexpr std::size_t kLarge = std::size_t{1} << 20;
  share_out(from.size(), [&](std::size_t i) {
    take_values(*to[i], *from[i]);
    // What was read from the file need not stay in memory beside its copy.
    if (!model.path.empty() && from[i]->bytes >= kLarge)
      io::drop_pages({from[i]->as<const std::byte>(), from[i]->bytes});
  });
  model = std::move(taken);
}

models::Model with_weights(const models::Model& model, const Parameters& parameters,
                           std::span<const StorageRef> arrays) {
  models::Model placed = model;
  std::unordered_map<const Storage*, StorageRef> moved;  // a tied head stays the table's storage
  std::size_t next = 0;
  for_each_weight(placed, [&](Kind, StorageRef& s) {
    StorageRef& there = moved[s.get()];
    if (!there) {
      const Parameters::Slot& slot = parameters.slots[next++];
      there = part_of(arrays[slot.group], slot, s->name);
    }
    s = there;
  });
  return placed;
}

}  // namespace supersonic::train
