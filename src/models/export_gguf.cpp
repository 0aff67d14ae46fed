// A model as a GGUF file that llama.cpp loads: metadata, tokenizer, chat template, tensors of the
// asked type.
//
// Which type a tensor gets follows llama-quantize (checked against its output in
// tests/oracle/live_interop.py): norms, biases and other one-dimensional tensors are f32; with a
// quantized type the output layer, or the embedding where it is also the output, is q6_k (q8_0
// where that was asked, or where the asked type's blocks do not divide its rows); q4_k is the
// mixture called Q4_K_M, with attn_v and ffn_down of some layers in q6_k. Rows that the blocks do
// not divide fall back as writable_for() says. One exception: llama-quantize gives attn_v of
// 80-layer models q5_k, which is not written here.
//
// A GGUF source's metadata is copied as it stands, but for what describes the types; a folder's is
// made from its JSON files.
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "io/architecture.h"
#include "io/float_convert.h"
#include "io/gguf.h"
#include "io/gguf_writer.h"
#include "io/hf_config.h"
#include "models/export_tensors.h"
#include "text/model_text.h"
#include "text/tokenizer.h"

namespace supersonic::models {
namespace {

constexpr std::uint32_t kQuantizationVersion = 2;

// llama.cpp's numbers for general.file_type.
std::uint32_t file_type(const TensorType& type) {
  constexpr std::pair<std::string_view, std::uint32_t> kNumbers[] = {
      {"f32", 0},   {"f16", 1},   {"q4_0", 2},  {"q4_1", 3},  {"q8_0", 7},
      {"q5_0", 8},  {"q5_1", 9},  {"q2_k", 10}, {"q3_k", 12}, {"q4_k", 15},
      {"q5_k", 17}, {"q6_k", 18}, {"bf16", 32}};
  const std::string name = name_of(type);
  for (const auto& [known, number] : kNumbers)
    if (known == name) return number;
  fail(ErrorKind::failure, "GGUF has no file type for {} weights", name);
}

TensorType fitting(const Format& format, std::int64_t cols) {
  const Format* f = writable_for(format, cols);
  return f ? TensorType{DType::quant, f} : TensorType{DType::f16, nullptr};
}

// The layers that the K mixtures give more bits: the first and the last eighth, and every third
// between.
bool more_bits(std::int64_t layer, std::int64_t layers) {
  return layer < layers / 8 || layer >= 7 * layers / 8 || (layer - layers / 8) % 3 == 2;
}

std::int64_t layer_of(const std::string& module) {
  constexpr std::string_view kPrefix = "model.layers.";
  return module.starts_with(kPrefix) ? std::atoll(module.c_str() + kPrefix.size()) : -1;
}

TensorType quantized_type(const ModelTensor& t, const Format& asked, const Model& model) {
  const bool tied = model.head == model.embedding;
  if (t.module == (tied ? "model.embed_tokens" : "lm_head")) {
    const bool q8 = asked.name == "q8_0" || t.cols % asked.block != 0;
    return fitting(*find_format(q8 ? "q8_0" : "q6_k"), t.cols);
  }
  const bool richer = t.gguf.ends_with(".attn_v") || t.gguf.find(".ffn_down") != t.gguf.npos;
  if (asked.name == "q4_k" && richer &&
      more_bits(layer_of(t.module), model.config.num_hidden_layers))
    return fitting(*find_format("q6_k"), t.cols);
  return fitting(asked, t.cols);
}

TensorType type_for(const ModelTensor& t, const std::optional<TensorType>& asked,
                    const Model& model) {
  if (!t.matrix() || t.gguf.ends_with("ffn_gate_inp")) return {DType::f32, nullptr};
  if (!asked) return t.slot && t.type().format ? fitting(*find_format("q8_0"), t.cols) : t.type();
  return asked->format ? quantized_type(t, *asked->format, model) : *asked;
}

// Of the type that holds most weights.
TensorType main_type(const std::vector<ModelTensor>& tensors,
                     const std::vector<TensorType>& types) {
  std::map<std::string, std::pair<std::int64_t, TensorType>> weights;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    auto& [count, type] = weights[name_of(types[i])];
    if (tensors[i].matrix() && layer_of(tensors[i].module) >= 0)
      count += tensors[i].rows * tensors[i].cols, type = types[i];
  }
  return std::max_element(
             weights.begin(), weights.end(),
             [](const auto& a, const auto& b) { return a.second.first < b.second.first; })
      ->second.second;
}

bool describes_types(std::string_view key) {
  return key == "general.file_type" || key == "general.quantization_version" ||
         key == "general.alignment" || key.starts_with("split.");
}

void set_id(io::GgufWriter& out, const char* key, std::int32_t id) {
  if (id >= 0) out.set_u32(key, static_cast<std::uint32_t>(id));
}

void write_tokenizer(io::GgufWriter& out, const Model& model) {
  const text::Tokenizer tokenizer = text::ModelText(model.path).tokenizer();
  text::GgufVocabData v = text::to_gguf_vocab(tokenizer);
  const auto rows = static_cast<std::size_t>(model.config.vocab_size);
  CHECK_FILE(
      v.tokens.size() <= rows,
      "{}: the tokenizer has {} tokens, the embedding {} rows: a GGUF file needs a row for each",
      model.path, v.tokens.size(), rows);
  constexpr std::int32_t kUnused = 5;
  for (std::size_t id = v.tokens.size(); id < rows; ++id)
    v.tokens.push_back(fmt::format("[PAD{}]", id));
  v.token_type.resize(rows, kUnused);
  if (!v.scores.empty()) v.scores.resize(rows, 0.0f);
  out.set_string("tokenizer.ggml.model", v.model);
  out.set_string("tokenizer.ggml.pre", v.pre);
  out.set_strings("tokenizer.ggml.tokens", v.tokens);
  if (!v.scores.empty()) out.set_f32s("tokenizer.ggml.scores", v.scores);
  out.set_i32s("tokenizer.ggml.token_type", v.token_type);
  if (!v.merges.empty()) out.set_strings("tokenizer.ggml.merges", v.merges);
  set_id(out, "tokenizer.ggml.bos_token_id", v.bos_id);
  set_id(out, "tokenizer.ggml.eos_token_id", v.eos_id);
  set_id(out, "tokenizer.ggml.eot_token_id", v.eot_id);
  set_id(out, "tokenizer.ggml.unknown_token_id", v.unk_id);
  set_id(out, "tokenizer.ggml.padding_token_id", v.pad_id);
  out.set_bool("tokenizer.ggml.add_bos_token", v.add_bos);
  out.set_bool("tokenizer.ggml.add_eos_token", v.add_eos);
  if (v.model == "llama") out.set_bool("tokenizer.ggml.add_space_prefix", v.add_space_prefix);
  for (const auto& [name, source] : io::read_tokenizer_config(model.path).chat_templates)
    out.set_string(
        name == "default" ? "tokenizer.chat_template" : "tokenizer.chat_template." + name, source);
}

void write_metadata(io::GgufWriter& out, const Model& model, const io::GgufFile* source) {
  if (source) {
    for (const io::GgufValue& v : source->values())
      if (!describes_types(v.key)) out.copy(v);
    return;
  }
  io::ModelConfig config = model.config;
  if (config.name.empty())
    config.name = std::filesystem::weakly_canonical(model.path).filename().string();
  io::write_gguf_config(out, config);
  write_tokenizer(out, model);
}

// Divisors of the rotary frequencies, which files have as tensors: Llama 3's scaling of long
// wavelengths, and longrope's two sets.
struct Divisors {
  std::string name;
  std::vector<float> values;
};

std::vector<Divisors> stored_divisors(const io::GgufFile& file) {
  std::vector<Divisors> all;
  for (const char* name :
       {"rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"})
    if (const io::GgufTensor* t = file.find_tensor(name))
      all.push_back({name, io::to_floats(t->data, t->dtype)});
  return all;
}

std::vector<Divisors> divisors_of(const Model& model) {
  const io::RopeScaling& s = model.config.rope_scaling;
  if (s.kind == io::RopeScaling::Kind::longrope)
    return {{"rope_factors_long.weight", {s.long_factor.begin(), s.long_factor.end()}},
            {"rope_factors_short.weight", {s.short_factor.begin(), s.short_factor.end()}}};
  if (s.kind != io::RopeScaling::Kind::llama3) return {};
  io::ModelConfig plain = model.config;
  plain.rope_scaling = {};
  float magnitude = 1;
  std::vector<float> divisors = rope_frequencies(plain, magnitude);
  const float* scaled = model.rope.inv_freq->as<float>();
  for (std::size_t i = 0; i < divisors.size(); ++i) divisors[i] /= scaled[i];
  return {{"rope_freqs.weight", std::move(divisors)}};
}

struct GgufExport {
  const Model& model;
  const ExportOptions& options;
  std::optional<io::GgufFile> source;
  std::vector<ModelTensor> tensors;
  std::vector<TensorType> types;
  std::vector<Divisors> divisors;
  ExportSummary summary;

  static std::string name(const ModelTensor& t) { return t.gguf + "." + t.part; }

  void choose_types() {
    std::optional<TensorType> asked;
    if (options.type != "auto") {
      asked = find_type(options.type);
      if (!asked)
        fail(ErrorKind::usage, "--type {}: a GGUF file can be written as {}", options.type,
             fmt::join(export_types(true), ", "));
    }
    for (const ModelTensor& t : tensors) types.push_back(type_for(t, asked, model));
  }

  void declare(io::GgufWriter& out) {
    TensorType main = main_type(tensors, types);
    out.set_u32("general.file_type", file_type(main));
    if (std::any_of(types.begin(), types.end(), [](const TensorType& t) { return t.format; }))
      out.set_u32("general.quantization_version", kQuantizationVersion);
    for (const Divisors& d : divisors)
      out.declare(d.name, {static_cast<std::int64_t>(d.values.size())}, DType::f32);
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      const ModelTensor& t = tensors[i];
      if (types[i].format)
        out.declare(name(t), t.shape(), *types[i].format);
      else
        out.declare(name(t), t.shape(), types[i].dtype);
      summary.bytes += row_bytes(types[i], t.cols) * static_cast<std::size_t>(t.rows);
      ++summary.types[name_of(types[i])];
    }
    summary.tensors = tensors.size();
  }

  void write(const std::string& path) {
    io::GgufWriter out(path);
    write_metadata(out, model, source ? &*source : nullptr);
    declare(out);
    check_room(std::filesystem::path(path).parent_path().string(), summary.bytes);
    for (const Divisors& d : divisors) out.append(d.name, std::as_bytes(std::span(d.values)));
    TensorEncoder encoder(model, true);
    std::uint64_t done = 0;
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      const bool copied =
          encoder.encode(tensors[i], types[i], [&](std::span<const std::byte> bytes) {
            out.append(name(tensors[i]), bytes);
            done += bytes.size();
            if (options.progress) options.progress(done, summary.bytes);
          });
      if (!copied) ++summary.encoded[name_of(types[i])];
    }
    out.finish();
  }
};

}  // namespace

ExportSummary write_gguf_model(const Model& model, const std::string& path,
                               const ExportOptions& options) {
  GgufExport job{.model = model,
                 .options = options,
                 .source = {},
                 .tensors = model_tensors(model, options.lora),
                 .types = {},
                 .divisors = {},
                 .summary = {}};
  if (model.from_gguf) {
    job.source = io::GgufFile::open(model.path);
    job.divisors = stored_divisors(*job.source);
  } else {
    job.divisors = divisors_of(model);
  }
  job.choose_types();
  job.write(path);
  return std::move(job.summary);
}

std::vector<std::string> export_types(bool gguf) {
  std::vector<std::string> names = {"f32", "bf16", "f16"};
  if (!gguf) return names;
  for (const Format* f : all_formats())
    if (f->ggml_type >= 0 && f->encode) names.emplace_back(f->name);
  return names;
}

io::GgufAdapter to_gguf_adapter(const Model& model, io::LoraAdapter adapter) {
  const io::Architecture& architecture = io::architecture_of(model.config);
  for (io::LoraModule& m : adapter.modules) {
    const std::int64_t heads = m.name.ends_with(".q_proj")   ? model.config.num_attention_heads
                               : m.name.ends_with(".k_proj") ? model.config.num_key_value_heads
                                                             : 0;
    if (heads && architecture.gguf_interleaved)
      io::to_qk_layout(m.b, heads, model.config.head_dim, io::QkLayout::interleaved);
    m.name = gguf_name(model.config, m.name) + ".weight";
  }
  return {std::string(architecture.gguf), std::move(adapter)};
}

}  // namespace supersonic::models
