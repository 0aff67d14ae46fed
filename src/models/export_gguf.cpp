// A model as a GGUF file that llama.cpp loads: metadata, tokenizer, chat template, tensors of the
// asked type.
//
// Which type a tensor gets follows llama-quantize: norms, biases and other one-dimensional tensors
// are f32, the matrices are a mixture (quant_mix.h). With "auto" each keeps its type.
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
#include "io/gguf_split.h"
#include "io/gguf_writer.h"
#include "io/hf_config.h"
#include "models/expert_adapters.h"
#include "models/export_tensors.h"
#include "models/quant_mix.h"
#include "text/model_text.h"
#include "text/tokenizer.h"

namespace supersonic::models {
namespace {

constexpr std::uint32_t kQuantizationVersion = 2;
constexpr std::uint32_t kBf16FileType = 32, kGuessedFileType = 1024;  // of general.file_type

std::int64_t layer_of(const std::string& module) {
  constexpr std::string_view kPrefix = "model.layers.";
  return module.starts_with(kPrefix) ? std::atoll(module.c_str() + kPrefix.size()) : -1;
}

// What --type asks for: one float type, a mixture, or (neither) each tensor's own type.
struct Asked {
  std::optional<DType> dtype;
  const QuantMix* mix = nullptr;
};

Asked asked_of(const std::string& type) {
  if (type == "auto") return {};
  if (const QuantMix* mix = find_mix(type)) return {{}, mix};
  const auto found = find_type(type);
  if (!found || found->format)
    fail(ErrorKind::usage, "--type {}: a GGUF file can be written as {}", type,
         fmt::join(export_types(true), ", "));
  return {found->dtype, nullptr};
}

MixModel mix_model(const Model& model) {
  return {.layers = model.config.num_hidden_layers,
          .heads = model.config.num_attention_heads,
          .kv_heads = model.config.num_key_value_heads,
          .experts = model.config.experts.count,
          .tied = model.head == model.embedding};
}

TensorType type_for(const ModelTensor& t, const std::string& name, const Asked& asked,
                    const Model& model) {
  if (t.gguf.ends_with("ffn_gate_inp")) return {DType::f32, nullptr};
  if (!t.matrix() || (asked.mix && !is_quantized_by_mixes(name))) return {DType::f32, nullptr};
  const Format* f = nullptr;
  if (asked.mix) {
    f = mixed_format(*asked.mix, name, layer_of(t.module), t.cols, mix_model(model));
  } else if (asked.dtype) {
    return {*asked.dtype, nullptr};
  } else if (t.slot && t.type().format) {
    f = writable_for(*find_format("q8_0"), t.cols);
  } else {
    return t.type();
  }
  return f ? TensorType{DType::quant, f} : TensorType{DType::f16, nullptr};
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

// llama.cpp's number for general.file_type: of the mixture, or of the type that holds most weights.
// A file whose types all stay says what it said.
std::uint32_t file_type(const Asked& asked, const TensorType& main, const io::GgufFile* source,
                        bool types_stay) {
  if (asked.mix) return asked.mix->file_type;
  if (types_stay && source && source->find("general.file_type"))
    return source->get_u32("general.file_type");
  if (!main.format)
    return main.dtype == DType::f32 ? 0u : main.dtype == DType::f16 ? 1u : kBf16FileType;
  const QuantMix* mix = plain_mix(*main.format);
  return mix ? mix->file_type : kGuessedFileType;
}

// Whether a key of the source is about how it was written rather than about the model. The
// quantizer's own notes (quantize.*) hold as long as the types stay.
bool describes_types(std::string_view key, bool types_stay) {
  return key == "general.file_type" || key == "general.quantization_version" ||
         key == "general.alignment" || key.starts_with("split.") ||
         (!types_stay && key.starts_with("quantize."));
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

void write_metadata(io::GgufWriter& out, const Model& model, const io::GgufFile* source,
                    bool types_stay) {
  if (source) {
    for (const io::GgufValue& v : source->values())
      if (!describes_types(v.key, types_stay)) out.copy(v);
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

  Asked asked;

  void choose_types() {
    asked = asked_of(options.type);
    for (const ModelTensor& t : tensors) types.push_back(type_for(t, name(t), asked, model));
  }

  std::uint64_t bytes_of(std::size_t i) const {
    return row_bytes(types[i], tensors[i].cols) * static_cast<std::size_t>(tensors[i].rows);
  }

  void count() {
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      summary.bytes += bytes_of(i);
      ++summary.types[name_of(types[i])];
    }
    summary.tensors = tensors.size();
  }

  // Where each file begins among the tensors; a tensor larger than a file may be has one for
  // itself.
  std::vector<std::size_t> cut() const {
    std::vector<std::size_t> starts = {0};
    std::uint64_t bytes = 0;
    for (std::size_t i = 0; options.shard_bytes && i < tensors.size(); ++i) {
      if (bytes > 0 && bytes_of(i) > *options.shard_bytes - std::min(bytes, *options.shard_bytes)) {
        starts.push_back(i);
        bytes = 0;
      }
      bytes += bytes_of(i);
    }
    CHECK(starts.size() <= io::kMaxParts,
          "{}: {} files of {} bytes; a GGUF model has up to {}: choose a larger --shard-size",
          model.path, starts.size(), *options.shard_bytes, io::kMaxParts);
    return starts;
  }

  void describe_part(io::GgufWriter& out, std::size_t part, std::size_t parts) const {
    if (part == 0) {
      const io::GgufFile* from = source ? &*source : nullptr;
      const bool types_stay = !asked.mix && !asked.dtype && !options.lora;
      write_metadata(out, model, from, types_stay);
      out.set_u32("general.file_type",
                  file_type(asked, main_type(tensors, types), from, types_stay));
      if (std::any_of(types.begin(), types.end(), [](const TensorType& t) { return t.format; }))
        out.set_u32("general.quantization_version", kQuantizationVersion);
    }
    if (parts == 1) return;
    out.set_u16("split.no", static_cast<std::uint16_t>(part));
    out.set_u16("split.count", static_cast<std::uint16_t>(parts));
    const std::size_t all = tensors.size() + divisors.size();
    out.set_i32("split.tensors.count", static_cast<std::int32_t>(all));
  }

  void declare(io::GgufWriter& out, std::size_t first, std::size_t last) const {
    for (std::size_t i = 0; first == 0 && i < divisors.size(); ++i)
      out.declare(divisors[i].name, {static_cast<std::int64_t>(divisors[i].values.size())},
                  DType::f32);
    for (std::size_t i = first; i < last; ++i) {
      const ModelTensor& t = tensors[i];
      if (types[i].format)
        out.declare(name(t), t.shape(), *types[i].format);
      else
        out.declare(name(t), t.shape(), types[i].dtype);
    }
  }

  void write(const std::string& path) {
    count();
    check_room(std::filesystem::path(path).parent_path().string(), summary.bytes);
    TensorEncoder encoder(model, true);
    const std::vector<std::size_t> starts = cut();
    const std::string prefix = path.substr(0, path.size() - (path.ends_with(".gguf") ? 5 : 0));
    std::uint64_t done = 0;
    for (std::size_t part = 0; part < starts.size(); ++part) {
      const std::size_t first = starts[part];
      const std::size_t last = part + 1 < starts.size() ? starts[part + 1] : tensors.size();
      summary.files.push_back(starts.size() == 1
                                  ? path
                                  : io::split_name(prefix, static_cast<std::uint32_t>(part),
                                                   static_cast<std::uint32_t>(starts.size())));
      io::GgufWriter out(summary.files.back());
      describe_part(out, part, starts.size());
      declare(out, first, last);
      for (std::size_t i = 0; first == 0 && i < divisors.size(); ++i)
        out.append(divisors[i].name, std::as_bytes(std::span(divisors[i].values)));
      for (std::size_t i = first; i < last; ++i) {
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
                 .summary = {},
                 .asked = {}};
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
  for (std::string& mix : mix_names()) names.push_back(std::move(mix));
  return names;
}

io::GgufAdapter to_gguf_adapter(const Model& model, io::LoraAdapter adapter) {
  const io::Architecture& architecture = io::architecture_of(model.config);
  std::vector<io::LoraModule> modules;
  for (io::LoraModule& m : adapter.modules) {
    if (m.experts) {
      for (io::LoraModule& part : split_experts(model, m)) modules.push_back(std::move(part));
      continue;
    }
    const std::int64_t heads = m.name.ends_with(".q_proj")   ? model.config.num_attention_heads
                               : m.name.ends_with(".k_proj") ? model.config.num_key_value_heads
                                                             : 0;
    if (heads && architecture.gguf_interleaved)
      io::to_qk_layout(m.b, heads, model.config.head_dim, io::QkLayout::interleaved);
    m.name = gguf_name(model.config, m.name) + ".weight";
    modules.push_back(std::move(m));
  }
  adapter.modules = std::move(modules);
  return {std::string(architecture.gguf), std::move(adapter)};
}

}  // namespace supersonic::models
