// A model as a Hugging Face folder that transformers loads: config.json, generation_config.json,
// the tokenizer's files and model.safetensors (in shards where large). From a folder, the JSON
// files are copied and only the dtype changes; from a GGUF file they are written from its metadata.
// A tied output layer is stored once, as the embedding.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "io/float_convert.h"
#include "io/gguf.h"
#include "io/hf_config.h"
#include "io/json_tree.h"
#include "io/mapped_file.h"
#include "io/output_file.h"
#include "io/safetensors.h"
#include "models/export_fused.h"
#include "models/export_tensors.h"
#include "models/parts.h"
#include "text/model_text.h"
#include "text/tokenizer.h"

namespace supersonic::models {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kShardBytes = std::uint64_t{5}
                                      << 30;  // of a file, unless something else was asked for
constexpr const char* kTextFiles[] = {"generation_config.json",
                                      "tokenizer.json",
                                      "tokenizer_config.json",
                                      "special_tokens_map.json",
                                      "added_tokens.json",
                                      "vocab.json",
                                      "merges.txt",
                                      "tokenizer.model",
                                      "chat_template.jinja"};

const char* torch_name(DType dtype) {
  return dtype == DType::f32 ? "float32" : dtype == DType::f16 ? "float16" : "bfloat16";
}

void copy_text(const fs::path& from, const fs::path& to) {
  const io::MappedFile file = io::MappedFile::open(from.string());
  io::OutputFile out(to.string());
  out.write(file.bytes());
  out.commit();
}

// The scaling whose divisors these are. GGUF stores what Llama 3's rule gives, not its parameters:
// factor is the largest divisor, low_freq_factor and high_freq_factor are 1 and 4 in every released
// model, and the original context is a power of two.
io::RopeScaling scaling_of(const std::vector<float>& divisors, const io::ModelConfig& config,
                           const std::string& source) {
  io::ModelConfig trial = config;
  io::RopeScaling& s = trial.rope_scaling;
  s.kind = io::RopeScaling::Kind::llama3;
  s.factor = *std::max_element(divisors.begin(), divisors.end());
  s.low_freq_factor = 1, s.high_freq_factor = 4;
  io::ModelConfig plain = config;
  float magnitude = 1;
  const std::vector<float> base = rope_frequencies(plain, magnitude);
  for (std::int64_t original = 1; original <= std::int64_t{1} << 24; original *= 2) {
    s.original_max_position = original;
    const std::vector<float> scaled = rope_frequencies(trial, magnitude);
    bool same = true;
    for (std::size_t i = 0; i < base.size() && same; ++i)
      same = std::fabs(base[i] / scaled[i] - divisors[i]) <= 1e-4f * divisors[i];
    if (same) return s;
  }
  fail(
      ErrorKind::failure,
      "{}: rope_freqs.weight follows no scaling that config.json can name; convert to GGUF instead",
      source);
}

// A folder has each expert's matrix for itself.
std::vector<ModelTensor> one_by_one(std::vector<ModelTensor> tensors) {
  std::vector<ModelTensor> out;
  for (ModelTensor& t : tensors) {
    const std::int64_t rows = t.experts ? t.rows / t.experts : t.rows;
    for (std::int64_t e = 0; e < t.experts; ++e) {
      ModelTensor one = t;
      one.module = expert_name(t.module, e), one.rows = rows, one.first = e * rows, one.experts = 0;
      out.push_back(std::move(one));
    }
    if (!t.experts) out.push_back(std::move(t));
  }
  return out;
}

struct FolderExport {
  const Model& model;
  const ExportOptions& options;
  fs::path folder;
  std::optional<io::SafeTensors> stored;  // of a folder: the types of its tensors
  DType whole = DType::bf16;              // of a GGUF source: one type for all
  ExportSummary summary = {};

  bool automatic() const { return options.type == "auto"; }

  // In the source folder; the loader has it as fp32 where it is small.
  std::optional<DType> stored_type(const ModelTensor& t) const {
    const io::SafeTensor* found = stored ? stored->find(model.text.stored(t.hf_name())) : nullptr;
    return found ? std::optional(found->dtype) : std::nullopt;
  }
  DType type_for(const ModelTensor& t) const {
    return automatic() ? stored_type(t).value_or(whole) : whole;
  }

  // Experts in MXFP4 stay so where the architecture's folders have a place for them, unless an
  // adapter changes some: all of a folder's are of one kind.
  bool keeps_blocks() const {
    const Format* mxfp4 = find_format("mxfp4");
    const auto is_packed = [&](const nn::Experts& e) {
      return e.weight && e.weight->spec.format == mxfp4 && !(options.lora && e.lora >= 0);
    };
    return automatic() && io::architecture_of(model.config).fused_experts &&
           std::all_of(model.layers.begin(), model.layers.end(), [&](const Layer& l) {
             return is_packed(l.expert_gate) && is_packed(l.expert_up) && is_packed(l.expert_down);
           });
  }

  void choose() {
    if (!model.from_gguf) stored = io::SafeTensors::open(model.path);
    const Spec& weights = model.layers[0].o.weight->spec;
    if (automatic() && !weights.format) whole = weights.dtype;
    if (automatic()) return;
    const auto asked = find_type(options.type);
    if (!asked || asked->format)
      fail(ErrorKind::usage, "--type {}: a Hugging Face folder can be written as {}{}",
           options.type, fmt::join(export_types(false), ", "),
           asked ? "; give the output a name that ends in .gguf for a GGUF file" : "");
    whole = asked->dtype;
  }

  void text_of_folder() const {
    const fs::path from = model.path;
    for (const char* name : kTextFiles)
      if (fs::exists(from / name)) copy_text(from / name, folder / name);
    if (!fs::is_directory(from / "additional_chat_templates")) return;
    fs::create_directory(folder / "additional_chat_templates");
    for (const auto& entry : fs::directory_iterator(from / "additional_chat_templates"))
      if (entry.is_regular_file())
        copy_text(entry.path(), folder / "additional_chat_templates" / entry.path().filename());
  }

  // Of a model that reads images too, a folder of the text model alone is written.
  void config_of_folder() const {
    if (!model.config.text_part_of.empty()) {
      io::ModelConfig c = model.config;
      if (!automatic()) c.dtype = torch_name(whole);
      return io::write_file((folder / "config.json").string(), io::to_config_json(c));
    }
    const std::string path = (fs::path(model.path) / "config.json").string();
    auto config = io::JsonTree::parse(io::read_file(path, io::JsonLimits{}.max_bytes));
    if (!automatic())
      config.set(config.contains("dtype") ? "dtype" : "torch_dtype", torch_name(whole));
    if (!keeps_blocks()) config.erase("quantization_config");
    io::write_file((folder / "config.json").string(), config.dump(2) + "\n");
  }

  void config_of_gguf(const io::GgufFile& file) const {
    io::ModelConfig c = model.config;
    c.dtype = torch_name(whole);
    for (double* x : {&c.rms_norm_eps, &c.rope_theta, &c.rope_scaling.factor})
      *x = std::stod(fmt::format("{}", static_cast<float>(*x)));
    if (const io::GgufTensor* t = file.find_tensor("rope_freqs.weight")) {
      const std::vector<float> divisors =
          io::to_floats(t->data, t->dtype);  // the loader has checked shape and type
      if (std::any_of(divisors.begin(), divisors.end(), [](float d) { return d != 1; }))
        c.rope_scaling = scaling_of(divisors, c, model.path);
    }
    auto config = io::JsonTree::parse(io::to_config_json(c));
    if (keeps_blocks()) config.set("quantization_config", packed_experts_config());
    io::write_file((folder / "config.json").string(), config.dump(2) + "\n");
    io::JsonTree generation;
    if (!c.bos_token_ids.empty()) generation.set("bos_token_id", c.bos_token_ids[0]);
    if (!c.eos_token_ids.empty())
      generation.set("eos_token_id", io::JsonTree::array(c.eos_token_ids));
    if (c.pad_token_id >= 0) generation.set("pad_token_id", c.pad_token_id);
    io::write_file((folder / "generation_config.json").string(), generation.dump(2) + "\n");
  }

  void text_of_gguf(const io::GgufFile& file) const {
    const text::ModelText text(file);
    const auto files =
        text::to_hf_json(text.tokenizer(), file.get_string("tokenizer.chat_template", ""));
    io::write_file((folder / "tokenizer.json").string(), files.tokenizer_json);
    io::write_file((folder / "tokenizer_config.json").string(), files.tokenizer_config_json);
    io::write_file((folder / "special_tokens_map.json").string(), files.special_tokens_map_json);
    for (const std::string& name : text.template_names()) {
      if (name == "default" || name.find('/') != name.npos) continue;
      fs::create_directory(folder / "additional_chat_templates");
      io::write_file((folder / "additional_chat_templates" / (name + ".jinja")).string(),
                     file.get_string("tokenizer.chat_template." + name));
    }
  }

  DType fused_type(const FusedTensor& t) const {
    const io::SafeTensor* found = automatic() && stored ? stored->find(t.name) : nullptr;
    return found ? found->dtype : whole;
  }

  std::vector<FusedPart> fused_parts(const std::vector<FusedTensor>& fused) const {
    std::vector<FusedPart> parts;
    for (const FusedTensor& t : fused)
      for (FusedPart& part : t.stored(fused_type(t), keeps_blocks() && t.packed()))
        parts.push_back(std::move(part));
    return parts;
  }

  void declare(io::SafeTensorsWriter& out, const std::string& name, const Shape& shape, DType dtype,
               const TensorType& type) {
    out.declare(name, shape, dtype);
    summary.bytes += size_of(dtype) * static_cast<std::size_t>(shape.numel());
    ++summary.types[name_of(type)];
    ++summary.tensors;
  }

  void weights() {
    std::vector<ModelTensor> tensors = model_tensors(model, options.lora);
    const auto fused = io::architecture_of(model.config).fused_experts ? take_fused_tensors(tensors)
                                                                       : std::vector<FusedTensor>();
    const std::vector<FusedPart> parts = fused_parts(fused);
    tensors = one_by_one(std::move(tensors));
    io::SafeTensorsWriter out((folder / "model").string(),
                              options.shard_bytes.value_or(kShardBytes));
    for (const ModelTensor& t : tensors)
      declare(out, t.hf_name(), t.shape(), type_for(t), {type_for(t), nullptr});
    for (const FusedPart& part : parts) declare(out, part.name, part.shape, part.dtype, part.type);
    check_room(folder.string(), summary.bytes);
    TensorEncoder encoder(model, false);
    std::uint64_t done = 0;
    const auto append = [&](const std::string& name, std::span<const std::byte> bytes) {
      out.append(name, bytes);
      done += bytes.size();
      if (options.progress) options.progress(done, summary.bytes);
    };
    for (const ModelTensor& t : tensors) {
      const TensorType type{type_for(t), nullptr};
      const bool copied = encoder.encode(
          t, type, [&](std::span<const std::byte> bytes) { append(t.hf_name(), bytes); });
      if (!copied && (t.slot || stored_type(t) != type.dtype)) ++summary.encoded[name_of(type)];
    }
    for (const FusedPart& part : parts) {
      part.write([&](std::span<const std::byte> bytes) { append(part.name, bytes); });
      const io::SafeTensor* same = stored ? stored->find(part.name) : nullptr;
      if (!part.copied && (part.merged || !same || same->dtype != part.dtype))
        ++summary.encoded[name_of(part.type)];
    }
    out.finish();
  }
};

}  // namespace

ExportSummary write_hf_model(const Model& model, const std::string& folder,
                             const ExportOptions& options) {
  FolderExport job{.model = model, .options = options, .folder = folder, .stored = {}};
  job.choose();
  if (model.from_gguf) {
    const io::GgufFile file = io::GgufFile::open(model.path);
    job.config_of_gguf(file);
    job.text_of_gguf(file);
  } else {
    job.config_of_folder();
    job.text_of_folder();
  }
  job.weights();
  return std::move(job.summary);
}

}  // namespace supersonic::models
