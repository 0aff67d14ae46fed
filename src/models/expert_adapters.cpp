#include "models/expert_adapters.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <unordered_map>

#include "core/error.h"
#include "io/architecture.h"
#include "models/parts.h"

namespace supersonic::models {
namespace {

using io::Role;

constexpr Role kRoles[] = {Role::expert_gate, Role::expert_up, Role::expert_down};
constexpr std::string_view kGateUp = "gate_up_proj", kDown = "down_proj";

std::size_t size(std::int64_t n) { return static_cast<std::size_t>(n); }

std::string parameter(std::int64_t layer, std::string_view name) {
  return fmt::format("model.layers.{}.mlp.experts.{}", layer, name);
}

// Which row of a fused B is row `row` of part `part` of `parts`, each of `rows`.
std::int64_t fused_row(const Model& model, std::int64_t parts, std::int64_t rows, std::int64_t part,
                       std::int64_t row) {
  return io::architecture_of(model.config).fused_experts ? row * parts + part : part * rows + row;
}

// What a file's module changes: one expert's matrix (expert < 0: those of all).
struct Piece {
  std::int64_t layer;
  Role role;
  std::int64_t expert;
};

// Every name that a piece may have in a file.
std::unordered_map<std::string, Piece> piece_names(const Model& model) {
  std::unordered_map<std::string, Piece> names;
  const io::Architecture& a = io::architecture_of(model.config);
  for (std::int64_t i = 0; i < model.config.num_hidden_layers; ++i) {
    if (!model.config.has_experts(i)) continue;
    for (const Role role : kRoles) {
      const io::RoleName& n = a.name_of(role);
      names[fmt::format("blk.{}.{}.weight", i, n.gguf)] = {i, role, -1};
      if (n.hf.find('*') == n.hf.npos) continue;
      for (std::int64_t e = 0; e < model.config.experts.count; ++e)
        names[expert_name(fmt::format("model.layers.{}.{}", i, n.hf), e)] = {i, role, e};
    }
  }
  return names;
}

// The same matrix of all experts, as far as the file has it.
struct Stack {
  io::LoraModule module;  // a (experts, rank, in), b (experts, out, rank)
  double scale = 0;
  std::vector<bool> there;
};

void check_piece(const Stack& s, const io::LoraModule& m, const Piece& p, double scale,
                 const std::string& source) {
  const io::LoraModule& first = s.module;
  CHECK_FILE(m.rank == first.rank && m.in == first.in && m.out == first.out && scale == s.scale,
             "{}: module '{}' has another rank, scale or shape than the experts before it: all "
             "experts of a layer's matrix must share them",
             source, m.name.substr(0, 200));
  CHECK_FILE(!s.there[size(std::max<std::int64_t>(p.expert, 0))], "{}: module '{}' is there twice",
             source, m.name.substr(0, 200));
}

void add_piece(Stack& s, const io::LoraModule& m, const Piece& p, double scale,
               std::int64_t experts, const std::string& source) {
  CHECK_FILE(m.experts == (p.expert < 0 ? experts : 0),
             "{}: module '{}' adapts {} experts, the model has {}", source, m.name.substr(0, 200),
             std::max<std::int64_t>(m.experts, 1), experts);
  if (s.there.empty()) {
    s.module.rank = m.rank, s.module.in = m.in, s.module.out = m.out;
    s.module.experts = experts;
    s.module.a.resize(size(experts * m.rank * m.in));
    s.module.b.resize(size(experts * m.out * m.rank));
    s.scale = scale;
    s.there.resize(size(experts));
  }
  check_piece(s, m, p, scale, source);
  const auto at = std::max<std::int64_t>(p.expert, 0);
  std::copy(m.a.begin(), m.a.end(), s.module.a.begin() + at * m.rank * m.in);
  std::copy(m.b.begin(), m.b.end(), s.module.b.begin() + at * m.out * m.rank);
  if (p.expert < 0)
    s.there.assign(size(experts), true);
  else
    s.there[size(at)] = true;
}

using Stacks = std::map<std::int64_t, std::array<Stack, 3>>;  // layer -> gate, up, down

double alpha_of(const io::LoraConfig& config, double scale, std::int64_t rank) {
  const auto r = static_cast<double>(rank);
  return scale * (config.use_rslora ? std::sqrt(r) : r);
}

// Gate's and up's stacks as one. Each part's rows of A and columns of B begin at `first`.
io::LoraModule fused(const Model& model, const std::array<Stack, 3>& stacks,
                     const io::LoraConfig& config) {
  const Stack &gate = stacks[0], &up = stacks[1];
  const Stack& some = gate.there.empty() ? up : gate;
  const bool both = !gate.there.empty() && !up.there.empty();
  const bool shared = both && gate.module.a == up.module.a;
  io::LoraModule m;
  m.in = some.module.in, m.out = 2 * some.module.out, m.experts = some.module.experts;
  m.rank = both && !shared ? gate.module.rank + up.module.rank : some.module.rank;
  m.alpha = alpha_of(config, some.scale, m.rank);
  m.a.resize(size(m.experts * m.rank * m.in));
  m.b.resize(size(m.experts * m.out * m.rank));
  for (std::int64_t part = 0; part < 2; ++part) {
    const Stack& s = stacks[size(part)];
    if (s.there.empty()) continue;
    const std::int64_t rank = s.module.rank, rows = some.module.out,
                       first = part == 1 && both && !shared ? gate.module.rank : 0;
    const auto ratio = static_cast<float>(s.scale / some.scale);
    for (std::int64_t e = 0; e < m.experts; ++e) {
      std::copy_n(s.module.a.begin() + e * rank * m.in, rank * m.in,
                  m.a.begin() + (e * m.rank + first) * m.in);
      for (std::int64_t row = 0; row < rows; ++row) {
        const std::int64_t to = e * m.out + fused_row(model, 2, rows, part, row);
        for (std::int64_t r = 0; r < rank; ++r)
          m.b[size(to * m.rank + first + r)] =
              ratio * s.module.b[size((e * rows + row) * rank + r)];
      }
    }
  }
  return m;
}

void add_made(GatheredModules& out, io::LoraModule module, std::string name) {
  module.name = std::move(name);
  out.made.push_back(std::move(module));
  out.all.push_back(&out.made.back());
}

}  // namespace

void ExpertGroup::set_slot(int slot) const {
  for (std::size_t i = 0; i < layers.size(); ++i)
    layers[i]->lora = slot, layers[i]->part = static_cast<int>(i);
}

std::vector<ExpertGroup> Model::expert_groups() {
  std::vector<ExpertGroup> groups;
  for (std::int64_t i = 0; i < config.num_hidden_layers; ++i) {
    if (!config.has_experts(i)) continue;
    Layer& l = layers[size(i)];
    groups.push_back({parameter(i, kGateUp), {&l.expert_gate, &l.expert_up}});
    groups.push_back({parameter(i, kDown), {&l.expert_down}});
  }
  return groups;
}

GatheredModules gather_experts(Model& model, const io::LoraAdapter& adapter,
                               const std::string& source) {
  const auto names = piece_names(model);
  GatheredModules out;
  Stacks stacks;
  for (const io::LoraModule& m : adapter.modules) {
    const auto found = names.find(m.name);
    if (found == names.end()) {
      out.all.push_back(&m);
      continue;
    }
    const Piece& p = found->second;
    const double scale = io::lora_scale(adapter.config, m);
    CHECK_FILE(scale != 0 && std::isfinite(scale), "{}: module '{}' has the scale {}", source,
               m.name, scale);
    Stack& s =
        stacks[p.layer]
              [size(std::find(std::begin(kRoles), std::end(kRoles), p.role) - std::begin(kRoles))];
    add_piece(s, m, p, scale, model.config.experts.count, source);
  }
  for (auto& [layer, of] : stacks) {
    const io::LoraModule &gate = of[0].module, &up = of[1].module;
    CHECK_FILE(
        of[0].there.empty() || of[1].there.empty() || (gate.in == up.in && gate.out == up.out),
        "{}: the adapters of layer {}'s gate and up projections have different shapes", source,
        layer);
    if (!of[0].there.empty() || !of[1].there.empty())
      add_made(out, fused(model, of, adapter.config), parameter(layer, kGateUp));
    if (of[2].there.empty()) continue;
    of[2].module.alpha = alpha_of(adapter.config, of[2].scale, of[2].module.rank);
    add_made(out, std::move(of[2].module), parameter(layer, kDown));
  }
  return out;
}

void put_experts(const Model& model, const io::LoraModule& m, const nn::LoraSlot& s,
                 std::span<float> values) {
  std::copy(m.a.begin(), m.a.end(), values.begin() + s.a);
  for (std::int64_t part = 0; part < s.parts; ++part)
    for (std::int64_t e = 0; e < s.experts; ++e)
      for (std::int64_t row = 0; row < s.out; ++row)
        std::copy_n(
            m.b.begin() + (e * m.out + fused_row(model, s.parts, s.out, part, row)) * s.rank,
            s.rank, values.begin() + s.b + part * s.part_size() + (e * s.out + row) * s.rank);
}

void take_experts(const Model& model, const nn::LoraSlot& s, std::span<const float> values,
                  io::LoraModule& m) {
  m.experts = s.experts;
  m.out = s.parts * s.out;
  m.a.assign(values.begin() + s.a, values.begin() + s.a + s.a_size());
  m.b.resize(size(s.parts * s.part_size()));
  for (std::int64_t part = 0; part < s.parts; ++part)
    for (std::int64_t e = 0; e < s.experts; ++e)
      for (std::int64_t row = 0; row < s.out; ++row)
        std::copy_n(
            values.begin() + s.b + part * s.part_size() + (e * s.out + row) * s.rank, s.rank,
            m.b.begin() + (e * m.out + fused_row(model, s.parts, s.out, part, row)) * s.rank);
}

std::vector<io::LoraModule> split_experts(const Model& model, const io::LoraModule& m) {
  const std::size_t begin = std::string_view("model.layers.").size();
  const std::string layer = m.name.substr(begin, m.name.find('.', begin) - begin);
  const io::Architecture& a = io::architecture_of(model.config);
  const std::int64_t parts = m.name.ends_with(kGateUp) ? 2 : 1, rows = m.out / parts;
  std::vector<io::LoraModule> out;
  for (std::int64_t part = 0; part < parts; ++part) {
    const Role role = parts == 1 ? Role::expert_down : kRoles[part];
    io::LoraModule one = m;
    one.name = fmt::format("blk.{}.{}.weight", layer, a.name_of(role).gguf);
    one.out = rows;
    one.b.resize(size(m.experts * rows * m.rank));
    for (std::int64_t e = 0; e < m.experts; ++e)
      for (std::int64_t row = 0; row < rows; ++row)
        std::copy_n(m.b.begin() + (e * m.out + fused_row(model, parts, rows, part, row)) * m.rank,
                    m.rank, one.b.begin() + (e * rows + row) * m.rank);
    out.push_back(std::move(one));
  }
  return out;
}

}  // namespace supersonic::models
