// GGUF adapters; see adapter.h.
#include <algorithm>
#include <cmath>
#include <map>

#include "core/error.h"
#include "io/adapter.h"
#include "io/float_convert.h"
#include "io/gguf.h"
#include "io/gguf_writer.h"

namespace supersonic::io {

namespace {

constexpr std::string_view kA = ".lora_a", kB = ".lora_b";

struct Pair {
  const GgufTensor *a = nullptr, *b = nullptr;
};

std::vector<float> floats_of(const GgufTensor& t, const std::string& source) {
  if (!t.format) {
    CHECK_FILE(is_float(t.dtype), "{}: tensor {}: {} values, floats were expected", source, t.name,
               name_of(t.dtype));
    return to_floats(t.data, t.dtype);
  }
  std::vector<float> result(static_cast<std::size_t>(t.shape.numel()));
  t.format->decode(Planes{{t.data.data()}}, 0, t.shape.numel(), result.data());
  return result;
}

LoraModule make_module(std::string_view name, const Pair& pair, double alpha,
                       const std::string& source) {
  CHECK_FILE(pair.a && pair.b, "{}: {} lacks its lora_{}", source, name, pair.a ? "b" : "a");
  const auto &a = pair.a->shape, &b = pair.b->shape;
  const bool experts = a.rank == 3 && b.rank == 3 && a[0] == b[0];
  CHECK_FILE(
      (experts || (a.rank == 2 && b.rank == 2)) && a[-2] == b[-1] && a.numel() > 0 && b.numel() > 0,
      "{}: {}: lora_a {} and lora_b {} do not make (rank, in) and (out, rank), nor these "
      "for each of some experts",
      source, name, to_string(a), to_string(b));
  LoraModule m;
  m.name = name;
  m.rank = a[-2];
  m.in = a[-1];
  m.out = b[-2];
  m.experts = experts ? a[0] : 0;
  m.alpha = alpha != 0 ? alpha : static_cast<double>(m.rank);  // llama.cpp: no alpha means scale 1
  m.a = floats_of(*pair.a, source);
  m.b = floats_of(*pair.b, source);
  return m;
}

}  // namespace

bool is_gguf_adapter(const GgufFile& file) {
  return file.get_string("general.type", "model") == "adapter";
}

GgufAdapter read_gguf_adapter(const GgufFile& file) {
  const std::string& source = file.path();
  CHECK_FILE(is_gguf_adapter(file), "{}: general.type is \"{}\", an adapter was expected", source,
             file.get_string("general.type", "model"));
  const auto type = file.get_string("adapter.type");
  CHECK_FILE(type == "lora", "{}: adapter.type is \"{}\", lora was expected", source, type);
  CHECK_FILE(!file.find("adapter.alora.invocation_tokens"),
             "{}: an adapter that starts at an invocation token, which is not applied here",
             source);
  GgufAdapter result;
  result.architecture = file.get_string("general.architecture");
  const double alpha = file.get_float("adapter.lora.alpha");
  CHECK_FILE(std::isfinite(alpha), "{}: adapter.lora.alpha is {}", source, alpha);
  std::map<std::string_view, Pair> pairs;
  for (const auto& t : file.tensors()) {
    const bool is_a = t.name.ends_with(kA), is_b = t.name.ends_with(kB);
    CHECK_FILE(is_a || is_b, "{}: the tensor \"{}\" is neither lora_a nor lora_b", source, t.name);
    auto& pair = pairs[t.name.substr(0, t.name.size() - kA.size())];
    (is_a ? pair.a : pair.b) = &t;
  }
  CHECK_FILE(!pairs.empty(), "{}: holds no adapter tensors", source);
  auto& adapter = result.adapter;
  for (const auto& [name, pair] : pairs) {
    adapter.modules.push_back(make_module(name, pair, alpha, source));
    adapter.config.rank = std::max(adapter.config.rank, adapter.modules.back().rank);
  }
  adapter.config.alpha = alpha != 0 ? alpha : static_cast<double>(adapter.config.rank);
  return result;
}

void write_gguf_adapter(const std::string& path, const GgufAdapter& adapter, DType dtype) {
  const auto& modules = adapter.adapter.modules;
  CHECK(!modules.empty(), "{}: an adapter without modules", path);
  // The file's scale of a module is alpha / rank.
  const double alpha =
      lora_scale(adapter.adapter.config, modules[0]) * static_cast<double>(modules[0].rank);
  CHECK(alpha != 0 && std::isfinite(alpha), "{}: an adapter of scale {} cannot be written", path,
        alpha);
  GgufWriter out(path);
  out.set_string("general.architecture", adapter.architecture);
  out.set_string("general.type", "adapter");
  out.set_string("adapter.type", "lora");
  out.set_f32("adapter.lora.alpha", static_cast<float>(alpha));
  const auto key = [](const LoraModule& m, std::string_view suffix) {
    return m.name + std::string(suffix);
  };
  for (const auto& m : modules) {
    const auto shape = [&](std::int64_t rows, std::int64_t cols) {
      return m.experts ? Shape{m.experts, rows, cols} : Shape{rows, cols};
    };
    out.declare(key(m, kA), shape(m.rank, m.in), dtype);
    out.declare(key(m, kB), shape(m.out, m.rank), dtype);
  }
  for (const auto& m : modules) {
    out.append(key(m, kA), from_floats(m.a, dtype));
    const double ratio = lora_scale(adapter.adapter.config, m) * static_cast<double>(m.rank) /
                         static_cast<float>(alpha);
    std::vector<float> b = m.b;
    if (ratio != 1)
      for (float& v : b) v = static_cast<float>(v * ratio);
    out.append(key(m, kB), from_floats(b, dtype));
  }
  out.finish();
}

}  // namespace supersonic::io
