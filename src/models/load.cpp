// Loading: a GGUF file or a Hugging Face folder becomes storages. Matrices stay in the mapped file, in the format that they have
// there; norms, biases and frequencies, which are small, become fp32. With a base format given, 16-bit matrices are quantized one
// by one while they load.
#include <algorithm>
#include <cstring>
#include <filesystem>

#include "io/float_convert.h"
#include "io/gguf.h"
#include "io/hf_config.h"
#include "io/mapped_file.h"
#include "io/safetensors.h"
#include "models/model.h"

namespace supersonic::models {
namespace {

struct Source {
  std::shared_ptr<io::GgufFile> gguf;
  std::shared_ptr<io::SafeTensors> folder;
  std::string path;

  struct Found {
    Spec spec;
    std::span<const std::byte> data;
    explicit operator bool() const { return !data.empty(); }
  };

  // module: Hugging Face's name; part: "weight" or "bias".
  Found find(const std::string& module, const char* part) const {
    if (gguf) {
      const io::GgufTensor* t = gguf->find_tensor(gguf_name(module) + "." + part);
      return t ? Found{{t->shape, t->dtype, t->format}, t->data} : Found{};
    }
    const io::SafeTensor* t = folder->find(module + "." + part);
    if (!t) return {};
    const auto& readable = folder->get(t->name);
    return {{readable.shape, readable.dtype, nullptr}, readable.data};
  }

  Found need(const std::string& module, const char* part, const Shape& shape) const {
    const Found f = find(module, part);
    const std::string name = gguf ? gguf_name(module) + "." + part : module + "." + part;
    CHECK_FILE(f, "{}: the model lacks the tensor '{}': the file is incomplete or of another architecture", path, name);
    CHECK_FILE(f.spec.shape == shape, "{}: tensor '{}' has shape {}, the configuration says {}", path, name,
               to_string(f.spec.shape), to_string(shape));
    return f;
  }

  std::function<void()> keep_alive() const {
    return [g = gguf, s = folder] {};
  }
};

StorageRef small_f32(const Source::Found& f, const std::string& name) {
  StorageRef s = Storage::make({f.spec.shape, DType::f32, nullptr}, name);
  CHECK_FILE(!f.spec.format, "tensor '{}' must not be quantized", name);
  CHECK_FILE(is_float(f.spec.dtype), "tensor '{}' is {}: a norm or bias must be f32, bf16, f16 or f64", name, name_of(f.spec.dtype));
  const auto values = io::to_floats(f.data, f.spec.dtype);
  std::memcpy(s->as<float>(), values.data(), values.size() * sizeof(float));
  return s;
}

// Format decoders read 16-bit fields in place; a tensor at an odd address is copied.
bool aligned(const Source::Found& f) {
  const std::size_t need = f.spec.format ? 2 : size_of(f.spec.dtype);
  return reinterpret_cast<std::uintptr_t>(f.data.data()) % need == 0;
}

StorageRef quantized(const Source::Found& f, const Format& format, const std::string& name) {
  StorageRef s = Storage::make({f.spec.shape, DType::quant, &format}, name);
  const auto values = io::to_floats(f.data, f.spec.dtype);
  void* planes[kMaxPlanes];
  for (int p = 0; p < kMaxPlanes; ++p) planes[p] = const_cast<void*>(s->planes.data[p]);
  format.encode(values.data(), f.spec.shape[0], f.spec.shape[1], planes);
  io::drop_pages(f.data);  // or the whole 16-bit file stays resident beside the quantized copy
  return s;
}

// Converters write NVFP4 matrices whose values are multiplied by a number that stands beside them. Without it every product would
// be wrong by that factor.
void check_scales(const io::GgufFile& file) {
  constexpr std::string_view kScale = ".scale", kInputScale = ".input_scale";
  for (const io::GgufTensor& t : file.tensors()) {
    const std::string_view ending = t.name.ends_with(kInputScale) ? kInputScale : kScale;
    if (!t.name.ends_with(ending)) continue;
    const std::string matrix = std::string(t.name.substr(0, t.name.size() - ending.size())) + ".weight";
    CHECK_FILE(!file.find_tensor(matrix), "{}: tensor '{}' scales '{}', which this program does not apply; use a file in another type (q8_0, q4_k)",
               file.path(), t.name, matrix);
  }
}

struct Loader {
  Source source;
  const Format* base = nullptr;
  Model model;

  StorageRef matrix(const std::string& module, std::int64_t rows, std::int64_t cols, bool may_quantize) {
    const auto f = source.need(module, "weight", Shape{rows, cols});
    CHECK_FILE(f.spec.format || f.spec.dtype == DType::f32 || f.spec.dtype == DType::bf16 || f.spec.dtype == DType::f16,
               "{}: tensor '{}.weight' is {}: weights must be f32, bf16, f16 or quantized", source.path, module, name_of(f.spec.dtype));
    const std::string name = module + ".weight";
    if (may_quantize && base && !f.spec.format && !(base->row_blocks && cols % base->block)) return quantized(f, *base, name);
    Planes planes;
    if (aligned(f)) {
      planes.data[0] = f.data.data();
      return Storage::external(f.spec, planes, name, source.keep_alive());
    }
    StorageRef s = Storage::make(f.spec, name);
    std::memcpy(s->as<void>(), f.data.data(), f.data.size());
    return s;
  }

  nn::Linear linear(const std::string& module, std::int64_t out, std::int64_t in) {
    nn::Linear l;
    l.name = module;
    l.weight = matrix(module, out, in, true);
    if (const auto b = source.find(module, "bias")) {
      CHECK_FILE(b.spec.shape == Shape{out}, "{}: '{}.bias' has shape {}, expected ({})", source.path, module, to_string(b.spec.shape), out);
      l.bias = small_f32(b, module + ".bias");
    }
    return l;
  }

  StorageRef norm(const std::string& module) {
    return small_f32(source.need(module, "weight", Shape{model.config.hidden_size}), module + ".weight");
  }

  void layers() {
    const auto& c = model.config;
    const std::int64_t d = c.hidden_size, h = c.num_attention_heads * c.head_dim, g = c.num_key_value_heads * c.head_dim;
    for (std::int64_t i = 0; i < c.num_hidden_layers; ++i) {
      const std::string p = "model.layers." + std::to_string(i) + ".";
      Layer l;
      l.attention_norm = norm(p + "input_layernorm");
      l.mlp_norm = norm(p + "post_attention_layernorm");
      l.q = linear(p + "self_attn.q_proj", h, d);
      l.k = linear(p + "self_attn.k_proj", g, d);
      l.v = linear(p + "self_attn.v_proj", g, d);
      l.o = linear(p + "self_attn.o_proj", d, h);
      l.gate = linear(p + "mlp.gate_proj", c.intermediate_size, d);
      l.up = linear(p + "mlp.up_proj", c.intermediate_size, d);
      l.down = linear(p + "mlp.down_proj", d, c.intermediate_size);
      // Over a prompt in int8 these three cost most of the perplexity and little of the time: SwiGLU's result has values far
      // beyond their neighbours, and every later token reads the keys and values.
      l.down.sensitive = l.k.sensitive = l.v.sensitive = true;
      model.layers.push_back(std::move(l));
    }
  }

  void frequencies() {
    auto f = rope_frequencies(model.config, model.rope_magnitude);
    if (source.gguf) {
      // Llama 3's scaling is written as one divisor per frequency.
      if (const io::GgufTensor* t = source.gguf->find_tensor("rope_freqs.weight")) {
        CHECK_FILE(t->shape == Shape{static_cast<std::int64_t>(f.size())} && t->dtype == DType::f32,
                   "{}: rope_freqs.weight must be f32({})", source.path, f.size());
        const auto divisors = io::to_floats(t->data, DType::f32);
        for (std::size_t i = 0; i < f.size(); ++i) f[i] /= divisors[i];
      }
    }
    model.inv_freq = Storage::make({Shape{static_cast<std::int64_t>(f.size())}, DType::f32, nullptr}, "inv_freq");
    std::copy(f.begin(), f.end(), model.inv_freq->as<float>());
  }

  Model load() {
    auto& c = model.config;
    model.path = source.path;
    model.from_gguf = source.gguf != nullptr;
    model.interleaved_rope = model.from_gguf && c.family != io::Family::qwen2;
    model.embedding = matrix("model.embed_tokens", c.vocab_size, c.hidden_size, false);
    model.head = source.find("lm_head", "weight") ? matrix("lm_head", c.vocab_size, c.hidden_size, false) : model.embedding;
    CHECK_FILE(!(model.head == model.embedding) || c.tie_word_embeddings || source.gguf,
               "{}: the model has no lm_head.weight, and its configuration does not tie it to the embedding", source.path);
    model.final_norm = norm("model.norm");
    layers();
    frequencies();
    return std::move(model);
  }
};

}  // namespace

Model load_model(const std::string& path, const LoadOptions& options) {
  namespace fs = std::filesystem;
  CHECK_FILE(fs::exists(path), "{}: no such file or folder: give a .gguf file or a Hugging Face model folder", path);
  Loader loader;
  loader.source.path = path;
  if (!options.base.empty()) {
    loader.base = find_format(options.base);
    if (!loader.base || !loader.base->encode)
      fail(ErrorKind::usage, "--base {}: not a format that weights can be quantized to: choose nf4, q4_0 or q8_0", options.base);
  }
  if (fs::is_directory(path)) {
    loader.model.config = io::read_model_config(path);
    loader.source.folder = std::make_shared<io::SafeTensors>(io::SafeTensors::open(path));
  } else {
    loader.source.gguf = std::make_shared<io::GgufFile>(io::GgufFile::open(path));
    check_scales(*loader.source.gguf);
    loader.model.config = io::model_config_from_gguf(*loader.source.gguf);
  }
  return loader.load();
}

std::vector<nn::Linear*> Model::linears() {
  std::vector<nn::Linear*> all;
  for (auto& l : layers)
    for (nn::Linear* x : {&l.q, &l.k, &l.v, &l.o, &l.gate, &l.up, &l.down}) all.push_back(x);
  return all;
}
std::vector<const nn::Linear*> Model::linears() const {
  std::vector<const nn::Linear*> all;
  for (const auto& l : layers)
    for (const nn::Linear* x : {&l.q, &l.k, &l.v, &l.o, &l.gate, &l.up, &l.down}) all.push_back(x);
  return all;
}

std::int64_t Model::parameters() const {
  std::int64_t n = embedding->spec.numel() + final_norm->spec.numel();
  if (!(head == embedding)) n += head->spec.numel();
  for (const auto& l : layers) n += l.attention_norm->spec.numel() + l.mlp_norm->spec.numel();
  for (const auto* l : linears()) n += l->weight->spec.numel() + (l->bias ? l->bias->spec.numel() : 0);
  return n;
}

std::size_t Model::weight_bytes() const {
  std::size_t n = embedding->bytes + (head == embedding ? 0 : head->bytes) + final_norm->bytes;
  for (const auto& l : layers) n += l.attention_norm->bytes + l.mlp_norm->bytes;
  for (const auto* l : linears()) n += l->weight->bytes + (l->bias ? l->bias->bytes : 0);
  return n;
}

}  // namespace supersonic::models
