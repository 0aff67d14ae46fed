// Loading: a GGUF file or a Hugging Face folder becomes storages. Matrices stay in the mapped file,
// in the format that they have there; norms, biases and frequencies, which are small, become fp32.
// With a base format given, 16-bit matrices are quantized one by one while they load.
#include <algorithm>
#include <cstring>
#include <filesystem>

#include "io/float_convert.h"
#include "io/gguf.h"
#include "io/hf_config.h"
#include "io/mapped_file.h"
#include "io/safetensors.h"
#include "models/fused_experts.h"
#include "models/parts.h"

namespace supersonic::models {
namespace {

struct Source {
  std::shared_ptr<io::GgufFile> gguf;
  std::shared_ptr<io::SafeTensors> folder;
  std::string path;
  TextPlace text = {};

  struct Found {
    Spec spec;
    std::span<const std::byte> data;
    explicit operator bool() const { return !data.empty(); }
  };

  std::string name(const PartInfo& info, const char* part) const {
    return (gguf ? info.gguf : info.hf) + part;
  }

  // part: ".weight", ".bias", or "" for a parameter without a module around it.
  Found find(const std::string& name) const {
    if (gguf) {
      const io::GgufTensor* t = gguf->find_tensor(name);
      return t ? Found{{t->shape, t->dtype, t->format}, t->data} : Found{};
    }
    const io::SafeTensor* t = folder->find(text.stored(name));
    if (!t) return {};
    const auto& readable = folder->get(t->name);
    return {{readable.shape, readable.dtype, nullptr}, readable.data};
  }

  Found need(const std::string& name, const Shape& shape) const {
    const Found f = find(name);
    CHECK_FILE(
        f, "{}: the model lacks the tensor '{}': the file is incomplete or of another architecture",
        path, text.stored(name));
    CHECK_FILE(f.spec.shape == shape, "{}: tensor '{}' has shape {}, the configuration says {}",
               path, text.stored(name), to_string(f.spec.shape), to_string(shape));
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

// mapped: the data lies in the file.
StorageRef quantized(const Source::Found& f, const Format& format, const std::string& name,
                     bool mapped = true) {
  StorageRef s = Storage::make({f.spec.shape, DType::quant, &format}, name);
  const auto values = io::to_floats(f.data, f.spec.dtype);
  void* planes[kMaxPlanes];
  for (int p = 0; p < kMaxPlanes; ++p) planes[p] = const_cast<void*>(s->planes.data[p]);
  format.encode(values.data(), f.spec.shape[0], f.spec.shape[1], planes);
  if (mapped)
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

// Files of a model that reads images too, as they were and as newer tools write them.
TextPlace text_place(const io::SafeTensors& folder) {
  for (const TextPlace& place : {TextPlace{},
                                 {"language_model.model.", "language_model.lm_head."},
                                 {"model.language_model.", "lm_head."}})
    if (folder.find(place.stored("model.embed_tokens.weight"))) return place;
  return {};
}

struct Loader {
  Source source;
  const Format* base = nullptr;
  const io::Architecture* architecture = nullptr;
  Model model;

  StorageRef matrix(const std::string& name, const Source::Found& f, bool may_quantize) {
    CHECK_FILE(f.spec.format || f.spec.dtype == DType::f32 || f.spec.dtype == DType::bf16 ||
                   f.spec.dtype == DType::f16,
               "{}: tensor '{}' is {}: weights must be f32, bf16, f16 or quantized", source.path,
               name, name_of(f.spec.dtype));
    if (may_quantize && base && !f.spec.format &&
        !(base->row_blocks && f.spec.shape[1] % base->block))
      return quantized(f, *base, name);
    Planes planes;
    if (aligned(f)) {
      planes.data[0] = f.data.data();
      return Storage::external(f.spec, planes, name, source.keep_alive());
    }
    StorageRef s = Storage::make(f.spec, name);
    std::memcpy(s->as<void>(), f.data.data(), f.data.size());
    return s;
  }

  // Folders of some architectures store what a norm's weight has beyond 1.
  StorageRef norm(const PartInfo& info) {
    StorageRef s =
        small_f32(source.need(source.name(info, ".weight"), info.shape), info.hf + ".weight");
    if (!source.gguf && architecture->unit_norms)
      for (float& w : s->values<float>()) w += 1.0f;
    return s;
  }

  void operator()(const PartInfo& info, StorageRef& s) {
    if (info.kind == PartKind::norm) {
      s = norm(info);
    } else if (info.kind == PartKind::vector) {
      s = small_f32(source.need(source.name(info, source.gguf ? ".weight" : ""), info.shape),
                    info.hf);
    } else if (info.hf == "lm_head" && !source.find(source.name(info, ".weight"))) {
      s = model.embedding;
      CHECK_FILE(model.config.tie_word_embeddings || source.gguf,
                 "{}: the model has no lm_head.weight, and its configuration does not tie it to "
                 "the embedding",
                 source.path);
    } else {
      s = matrix(info.hf + ".weight", source.need(source.name(info, ".weight"), info.shape), false);
    }
  }

  void operator()(const PartInfo& info, nn::Linear& l) {
    l.name = info.hf;
    l.sensitive = info.sensitive;
    l.weight = matrix(info.hf + ".weight", source.need(source.name(info, ".weight"), info.shape),
                      info.adapted);
    if (const auto b = source.find(source.name(info, ".bias"))) {
      CHECK_FILE(b.spec.shape == Shape{info.shape[0]}, "{}: '{}.bias' has shape {}, expected ({})",
                 source.path, info.hf, to_string(b.spec.shape), info.shape[0]);
      l.bias = small_f32(b, info.hf + ".bias");
    }
  }

  // A GGUF file has all experts' matrices in one tensor; a folder has each for itself, and they are
  // put together.
  void operator()(const PartInfo& info, nn::Experts& e) {
    const std::int64_t count = model.config.experts.count, rows = info.shape[0] / count,
                       cols = info.shape[1];
    e.name = info.hf;
    if (!source.gguf && architecture->fused_experts) return fused(info, rows, cols, e);
    if (source.gguf) {
      Source::Found f = source.need(source.name(info, ".weight"), Shape{count, rows, cols});
      f.spec.shape = info.shape;
      e.weight = matrix(info.hf + ".weight", f, true);
    } else {
      e.weight = stacked(info, rows, cols);
    }
    const auto b = source.gguf ? source.find(source.name(info, ".bias")) : Source::Found{};
    if (!b) return;
    CHECK_FILE((b.spec.shape == Shape{count, rows}), "{}: '{}' has shape {}, expected {}",
               source.path, source.name(info, ".bias"), to_string(b.spec.shape),
               to_string(Shape{count, rows}));
    e.bias = small_f32(b, info.hf + ".bias");
  }

  // The experts' MXFP4 blocks of a gpt-oss folder (models/fused_experts.h).
  StorageRef packed(const PartInfo& info, std::int64_t rows, std::int64_t cols) {
    const FusedColumns columns = fused_columns(info.role);
    const std::int64_t count = model.config.experts.count, all = columns.step * rows,
                       blocks = cols / formats::MXFP4::weights;
    CHECK_FILE(cols % formats::MXFP4::weights == 0,
               "{}: '{}' is stored in MXFP4 blocks of {} weights, which rows of {} do not divide "
               "into; use the model in another type",
               source.path, info.hf, formats::MXFP4::weights, cols);
    const auto bytes = [&](const char* part, const Shape& shape) {
      const auto f = source.need(info.hf + part, shape);
      CHECK_FILE(f.spec.dtype == DType::u8, "{}: tensor '{}{}' is {}: MXFP4 is stored as u8",
                 source.path, info.hf, part, name_of(f.spec.dtype));
      return f.data;
    };
    const auto codes = bytes("_blocks", Shape{count, all, blocks, kPackedBytes});
    const auto scales = bytes("_scales", Shape{count, all, blocks});
    CHECK_FILE(std::find(scales.begin(), scales.end(), std::byte{255}) == scales.end(),
               "{}: tensor '{}_scales' has the scale 255, which is not a number: the file is damaged",
               source.path, info.hf);
    StorageRef s =
        Storage::make({info.shape, DType::quant, find_format("mxfp4")}, info.hf + ".weight");
    take_packed(reinterpret_cast<const std::uint8_t*>(codes.data()),
                reinterpret_cast<const std::uint8_t*>(scales.data()),
                s->as<formats::MXFP4::Block>(), count, rows, cols, columns);
    io::drop_pages(codes);
    return s;
  }

  void fused(const PartInfo& info, std::int64_t rows, std::int64_t cols, nn::Experts& e) {
    const std::int64_t count = model.config.experts.count;
    const FusedColumns columns = fused_columns(info.role);
    const auto take = [&](const Source::Found& f, const Shape& shape, std::int64_t in,
                          const std::string& name) {
      CHECK_FILE(is_float(f.spec.dtype), "{}: tensor '{}' is {}: weights must be f32, bf16 or f16",
                 source.path, name, name_of(f.spec.dtype));
      StorageRef s = Storage::make({shape, f.spec.dtype, nullptr}, name);
      take_fused(f.data.data(), s->as<std::byte>(), size_of(f.spec.dtype), count, rows, in,
                 columns);
      return s;
    };
    if (source.find(info.hf + "_blocks") || source.find(info.hf + "_scales")) {
      e.weight = packed(info, rows, cols);
    } else {
      const auto f = source.need(info.hf, Shape{count, cols, columns.step * rows});
      e.weight = take(f, info.shape, cols, info.hf);
      io::drop_pages(f.data);
      if (base)
        e.weight = quantized(
            {e.weight->spec, std::as_bytes(std::span(e.weight->as<std::byte>(), e.weight->bytes))},
            *base, info.hf, false);
    }
    const std::string bias = info.hf + "_bias";
    const StorageRef b =
        take(source.need(bias, Shape{count, columns.step * rows}), Shape{count, rows}, 1, bias);
    e.bias = small_f32({b->spec, std::as_bytes(std::span(b->as<std::byte>(), b->bytes))}, bias);
  }

  StorageRef stacked(const PartInfo& info, std::int64_t rows, std::int64_t cols) {
    if (base && base->planes > 1)
      fail(ErrorKind::usage, "--base {}: experts can be quantized to q4_0 or q8_0", base->name);
    StorageRef all;
    for (std::int64_t i = 0; i < model.config.experts.count; ++i) {
      const std::string name = expert_name(info.hf, i) + ".weight";
      const StorageRef one = matrix(name, source.need(name, Shape{rows, cols}), true);
      if (!all)
        all = Storage::make({info.shape, one->spec.dtype, one->spec.format}, info.hf + ".weight");
      CHECK_FILE(one->spec.dtype == all->spec.dtype, "{}: '{}' is {}, the experts before it are {}",
                 source.path, name, name_of(one->spec.dtype), name_of(all->spec.dtype));
      std::memcpy(all->as<std::byte>() + static_cast<std::size_t>(i) * one->bytes, one->as<void>(),
                  one->bytes);
      if (!one->spec.format) io::drop_pages(source.find(name).data);
    }
    return all;
  }

  void frequencies() {
    set_rotations(model);
    if (!source.gguf) return;
    // Llama 3's scaling is written as one divisor per frequency.
    const io::GgufTensor* t = source.gguf->find_tensor("rope_freqs.weight");
    if (!t) return;
    const auto f = model.rope.inv_freq->values<float>();
    CHECK_FILE(t->shape == Shape{static_cast<std::int64_t>(f.size())} && t->dtype == DType::f32,
               "{}: rope_freqs.weight must be f32({})", source.path, f.size());
    const auto divisors = io::to_floats(t->data, DType::f32);
    for (std::size_t i = 0; i < f.size(); ++i) f[i] /= divisors[i];
  }

  Model load() {
    model.path = source.path;
    model.text = source.text;
    model.from_gguf = source.gguf != nullptr;
    architecture = &io::architecture_of(model.config);
    model.interleaved_rope = model.from_gguf && architecture->gguf_interleaved;
    model.layers.resize(static_cast<std::size_t>(model.config.num_hidden_layers));
    for_each_part(model, *this);
    frequencies();
    return std::move(model);
  }
};

}  // namespace

std::string TextPlace::stored(std::string_view name) const {
  for (const auto& [plain, there] : {std::pair{TextPlace{}.body, body}, {TextPlace{}.head, head}})
    if (name.starts_with(plain)) return std::string(there).append(name.substr(plain.size()));
  return std::string(name);
}

Model load_model(const std::string& path, const LoadOptions& options) {
  namespace fs = std::filesystem;
  CHECK_FILE(fs::exists(path),
             "{}: no such file or folder: give a .gguf file or a Hugging Face model folder", path);
  Loader loader;
  loader.source.path = path;
  if (!options.base.empty()) {
    loader.base = find_format(options.base);
    if (!loader.base || !loader.base->encode)
      fail(ErrorKind::usage,
           "--base {}: not a format that weights can be quantized to: choose nf4, q4_0 or q8_0",
           options.base);
  }
  if (fs::is_directory(path)) {
    loader.model.config = io::read_model_config(path);
    loader.source.folder = std::make_shared<io::SafeTensors>(io::SafeTensors::open(path));
    loader.source.text = text_place(*loader.source.folder);
  } else {
    loader.source.gguf = std::make_shared<io::GgufFile>(io::GgufFile::open(path));
    check_scales(*loader.source.gguf);
    loader.model.config = io::model_config_from_gguf(*loader.source.gguf);
  }
  return loader.load();
}

namespace {

template <class L, class M>
std::vector<L*> adapted(M& model) {
  std::vector<L*> all;
  for_each_part(model, [&](const PartInfo& info, auto& part) {
    if constexpr (std::is_same_v<std::remove_cvref_t<decltype(part)>, nn::Linear>)
      if (info.adapted) all.push_back(&part);
  });
  return all;
}

// f(storage) of each, once.
void for_each_storage(const Model& m, const std::function<void(const Storage&)>& f) {
  for_each_part(m, [&](const PartInfo& info, const auto& part) {
    if constexpr (requires { part.weight; }) {
      f(*part.weight);
      if (part.bias) f(*part.bias);
    } else {
      if (info.hf != "lm_head" || !(m.head == m.embedding)) f(*part);
    }
  });
}

}  // namespace

std::vector<nn::Linear*> Model::linears() { return adapted<nn::Linear>(*this); }
std::vector<const nn::Linear*> Model::linears() const { return adapted<const nn::Linear>(*this); }

std::int64_t Model::parameters() const {
  std::int64_t n = 0;
  for_each_storage(*this, [&](const Storage& s) { n += s.spec.numel(); });
  return n;
}

std::size_t Model::weight_bytes() const {
  std::size_t n = 0;
  for_each_storage(*this, [&](const Storage& s) { n += s.bytes; });
  return n;
}

}  // namespace supersonic::models
