// Prints what src/io reads from a file, as JSON, and copies files through its writers, for the
// Python tests to compare with other readers and writers.
//   io_probe gguf FILE | safetensors PATH | config FOLDER | gguf-config FILE | peft FOLDER |
//   gguf-adapter FILE io_probe copy-gguf IN OUT | copy-safetensors IN STEM MAX_SHARD_BYTES |
//   copy-peft IN OUT io_probe peft-to-gguf IN OUT | gguf-to-peft IN OUT | write-config FOLDER OUT
#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "core/error.h"
#include "io/adapter.h"
#include "io/gguf.h"
#include "io/gguf_writer.h"
#include "io/hf_config.h"
#include "io/output_file.h"
#include "io/safetensors.h"

using namespace supersonic;
using nlohmann::json;

namespace {

std::string hash_of(std::span<const std::byte> bytes) {
  return fmt::format("{:016x}", XXH3_64bits(bytes.data(), bytes.size()));
}

json dims_of(const Shape& shape) {
  return std::vector<std::int64_t>(shape.dims.begin(), shape.dims.begin() + shape.rank);
}

json value_of(const io::GgufFile& file, const io::GgufValue& v) {
  using T = io::GgufType;
  if (v.type == T::string) return file.get_string(v.key);
  if (v.type == T::boolean) return file.get_bool(v.key, false);
  if (v.type == T::f32 || v.type == T::f64) return file.get_float(v.key);
  if (v.type != T::array) return file.get_i64(v.key);
  if (v.item == T::string) return file.get_strings(v.key).to_vector();
  if (v.item == T::f32 || v.item == T::f64) return file.get_floats(v.key);
  if (v.item == T::boolean) {
    std::vector<bool> items;
    for (const auto b : v.payload) items.push_back(b != std::byte{0});
    return items;
  }
  return file.get_ints(v.key);
}

json show_gguf(const std::string& path) {
  const auto file = io::GgufFile::open(path);
  json out{{"version", file.version()}, {"alignment", file.alignment()}};
  for (const auto& v : file.values())
    out["values"][std::string(v.key)] = {{"type", io::name_of(v.type)},
                                         {"value", value_of(file, v)}};
  for (const auto& t : file.tensors())
    out["tensors"][std::string(t.name)] = {{"shape", dims_of(t.shape)},
                                           {"type", io::ggml_type_name(t.ggml_type)},
                                           {"hash", hash_of(t.data)}};
  return out;
}

json show_safetensors(const std::string& path) {
  const auto file = io::SafeTensors::open(path);
  json out{{"files", file.files().size()}, {"metadata", json::object()}};
  for (const auto& [k, v] : file.metadata()) out["metadata"][k] = v;
  for (const auto& t : file.tensors())
    out["tensors"][t.name] = {{"shape", dims_of(t.shape)},
                              {"dtype", t.dtype_name},
                              {"readable", t.readable},
                              {"hash", hash_of(t.data)}};
  return out;
}

json show_config(const io::ModelConfig& c) {
  const auto& r = c.rope_scaling;
  return {{"family", c.family},
          {"hidden_size", c.hidden_size},
          {"intermediate_size", c.intermediate_size},
          {"num_hidden_layers", c.num_hidden_layers},
          {"num_attention_heads", c.num_attention_heads},
          {"num_key_value_heads", c.num_key_value_heads},
          {"head_dim", c.head_dim},
          {"vocab_size", c.vocab_size},
          {"max_position_embeddings", c.max_position_embeddings},
          {"rms_norm_eps", c.rms_norm_eps},
          {"rope_theta", c.rope_theta},
          {"rope_kind", io::name_of(r.kind)},
          {"rope_factor", r.factor},
          {"tie_word_embeddings", c.tie_word_embeddings},
          {"qkv_bias", c.qkv_bias},
          {"sliding_window", c.sliding_window},
          {"bos", c.bos_token_ids},
          {"eos", c.eos_token_ids}};
}

json show_adapter(const io::LoraAdapter& adapter) {
  json out{
      {"r", adapter.config.rank}, {"alpha", adapter.config.alpha}, {"modules", json::object()}};
  for (const auto& m : adapter.modules)
    out["modules"][m.name] = {{"rank", m.rank}, {"in", m.in},
                              {"out", m.out},   {"scale", io::lora_scale(adapter.config, m)},
                              {"a", m.a},       {"b", m.b}};
  return out;
}

// Uneven pieces, so that the streaming is exercised.
template <class Writer>
void stream(Writer& out, std::string_view name, std::span<const std::byte> data) {
  for (std::size_t piece = 1; !data.empty(); piece = piece * 3 + 1) {
    const std::size_t n = std::min(piece, data.size());
    out.append(name, data.first(n));
    data = data.subspan(n);
  }
}

void copy_gguf(const std::string& from, const std::string& to) {
  const auto in = io::GgufFile::open(from);
  io::GgufWriter out(to);
  for (const auto& v : in.values())
    if (v.key != "general.alignment") out.copy(v);
  for (const auto& t : in.tensors())
    t.format ? out.declare(t.name, t.shape, *t.format) : out.declare(t.name, t.shape, t.dtype);
  for (const auto& t : in.tensors()) stream(out, t.name, t.data);
  out.finish();
}

void copy_safetensors(const std::string& from, const std::string& stem,
                      std::uint64_t max_shard_bytes) {
  const auto in = io::SafeTensors::open(from);
  io::SafeTensorsWriter out(stem, max_shard_bytes);
  for (const auto& t : in.tensors()) out.declare(t.name, t.shape, in.get(t.name).dtype);
  for (const auto& t : in.tensors()) stream(out, t.name, t.data);
  out.finish();
}

json run(const std::string& what, const std::vector<std::string>& args) {
  const auto arg = [&](std::size_t i) -> const std::string& {
    CHECK(i < args.size(), "{}: too few arguments", what);
    return args[i];
  };
  if (what == "gguf") return show_gguf(arg(0));
  if (what == "safetensors") return show_safetensors(arg(0));
  if (what == "config") return show_config(io::read_model_config(arg(0)));
  if (what == "gguf-config")
    return show_config(io::model_config_from_gguf(io::GgufFile::open(arg(0))));
  if (what == "peft") return show_adapter(io::read_peft_adapter(arg(0)));
  if (what == "gguf-adapter")
    return show_adapter(io::read_gguf_adapter(io::GgufFile::open(arg(0))).adapter);
  if (what == "copy-gguf")
    copy_gguf(arg(0), arg(1));
  else if (what == "copy-safetensors")
    copy_safetensors(arg(0), arg(1), std::stoull(arg(2)));
  else if (what == "copy-peft")
    io::write_peft_adapter(arg(1), io::read_peft_adapter(arg(0)));
  else if (what == "peft-to-gguf")
    io::write_gguf_adapter(arg(1), {"llama", io::read_peft_adapter(arg(0))});
  else if (what == "gguf-to-peft")
    io::write_peft_adapter(arg(1), io::read_gguf_adapter(io::GgufFile::open(arg(0))).adapter);
  else if (what == "write-config")
    io::write_file(arg(1), io::to_config_json(io::read_model_config(arg(0))));
  else
    fail(ErrorKind::usage, "unknown request {}", what);
  return {{"done", true}};
}

}  // namespace

int main(int argc, char** argv) try {
  CHECK(argc >= 3, "usage: io_probe WHAT PATH [...]");
  const json out = run(argv[1], {argv + 2, argv + argc});
  std::puts(out.dump(-1, ' ', false, json::error_handler_t::replace).c_str());
  return 0;
} catch (const supersonic::Error& e) {
  std::fprintf(stderr, "error: %s\n", e.what());
  return static_cast<int>(e.kind());
}
