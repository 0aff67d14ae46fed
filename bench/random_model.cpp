// Writes a GGUF file with the shapes of a known model and random weights: what benchmarks run on
// where the real weights are not at hand. Time and memory depend on the shapes and the types alone.
// The tokenizer is that of another GGUF file, filled up with unused tokens to the vocabulary of the
// shape; the rest of the file is a Llama model as other programs read it.
//
//   random_model SHAPE TYPE TOKENIZER.gguf OUT.gguf [LAYERS]      SHAPE: 1b 1.5b 8b 13b 70b;
//   TYPE: q4_k_m, bf16, or any block format of docs/formats.md;  LAYERS: fewer than the shape has
//
// q4_k_m is the mixture that llama.cpp writes under this name: Q6_K for the head and for half of
// the value and down projections.
#include <fmt/core.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "core/error.h"
#include "io/gguf.h"
#include "io/gguf_writer.h"
#include "support/scales.h"

using namespace supersonic;

namespace {

struct ModelShape {
  std::int64_t hidden, layers, heads, kv_heads, ffn, vocab;
  bool tied;
  float rope_base;
};

// Llama 3.2 1B, Llama 3 8B, Llama 2 13B and Llama 3 70B as published; 1.5b: SmolLM2 1.7B with a
// quarter of its keys and values.
const std::map<std::string, ModelShape> kShapes = {
    {"1b", {2048, 16, 32, 8, 8192, 128256, true, 500000.0f}},
    {"1.5b", {2048, 24, 32, 8, 8192, 49152, true, 130000.0f}},
    {"8b", {4096, 32, 32, 8, 14336, 128256, false, 500000.0f}},
    {"13b", {5120, 40, 40, 40, 13824, 32000, false, 10000.0f}},
    {"70b", {8192, 80, 64, 8, 28672, 128256, false, 500000.0f}}};

constexpr int kNormalToken = 1, kUnusedToken = 5;  // the file format's token types

// Encodes a tile of rows once per type and width, and repeats it: enough for time, and fast to
// write.
class RandomRows {
 public:
  static constexpr std::int64_t kRows = 64;

  const std::vector<std::byte>& tile(const Format* format, std::int64_t cols) {
    auto& bytes = tiles_[{format, cols}];
    if (bytes.empty()) bytes = encode(format, cols);
    return bytes;
  }

 private:
  static std::vector<std::byte> encode(const Format* format, std::int64_t cols) {
    std::mt19937 rng(static_cast<unsigned>(cols));
    std::normal_distribution<float> normal(0.0f, 0.02f);
    std::vector<float> w(static_cast<std::size_t>(kRows * cols));
    for (float& x : w) x = normal(rng);
    std::vector<std::byte> bytes(format ? total_bytes(*format, kRows, cols)
                                        : w.size() * sizeof(bf16));
    if (format && !format->encode) {  // read only: any bytes, under usual scales
      for (std::byte& b : bytes) b = static_cast<std::byte>(rng());
      auto* block = reinterpret_cast<std::uint8_t*>(bytes.data());
      for (auto* end = block + bytes.size(); block < end; block += format->block_bytes)
        testing::set_scale(*format, block, 0x1p-10f);
    } else if (format) {
      void* const planes[] = {bytes.data()};
      format->encode(w.data(), kRows, cols, planes);
    } else {
      std::transform(w.begin(), w.end(), reinterpret_cast<bf16*>(bytes.data()),
                     [](float x) { return bf16(x); });
    }
    return bytes;
  }
  std::map<std::pair<const Format*, std::int64_t>, std::vector<std::byte>> tiles_;
};

struct Matrix {
  std::string name;
  std::int64_t rows, cols;
  const Format* format;  // null: bf16
};

class Writer {
 public:
  Writer(const std::string& shape, std::string type, const std::string& out, const char* layers)
      : shape_(find_shape(shape)), type_(std::move(type)), out_(out) {
    if (layers) shape_.layers = std::clamp<std::int64_t>(std::atoll(layers), 1, shape_.layers);
    mixture_ = type_ == "q4_k_m";
    const Format* format = find_format(type_);
    if (!mixture_ && type_ != "bf16" && (!format || format->ggml_type < 0))
      throw Error(fmt::format("no GGUF type {}; see supersonic help --formats", type_),
                  ErrorKind::usage);
  }

  void write(const std::string& tokenizer) {
    write_metadata();
    copy_tokenizer(io::GgufFile::open(tokenizer));
    list_tensors();
    for (const auto& m : matrices_) {
      const Shape shape{m.rows, m.cols};
      if (m.format)
        out_.declare(m.name, shape, *m.format);
      else
        out_.declare(m.name, shape, DType::bf16);
    }
    for (const auto& [name, n] : norms_) out_.declare(name, {n}, DType::f32);
    RandomRows random;
    for (const auto& m : matrices_) append(m, random.tile(m.format, m.cols));
    for (const auto& [name, n] : norms_) {
      const std::vector<float> ones(static_cast<std::size_t>(n), 1.0f);
      out_.append(name, std::as_bytes(std::span(ones)));
    }
    out_.finish();
  }

 private:
  static ModelShape find_shape(const std::string& name) {
    const auto it = kShapes.find(name);
    if (it == kShapes.end())
      throw Error(fmt::format("unknown shape {}; one of 1b, 1.5b, 8b, 13b, 70b", name),
                  ErrorKind::usage);
    return it->second;
  }

  void write_metadata() {
    const auto u32 = [&](const char* key, std::int64_t v) {
      out_.set_u32(fmt::format("llama.{}", key), static_cast<std::uint32_t>(v));
    };
    out_.set_string("general.architecture", "llama");
    out_.set_string("general.name", "random weights");
    u32("block_count", shape_.layers);
    u32("context_length", 131072);
    u32("embedding_length", shape_.hidden);
    u32("feed_forward_length", shape_.ffn);
    u32("attention.head_count", shape_.heads);
    u32("attention.head_count_kv", shape_.kv_heads);
    u32("rope.dimension_count", shape_.hidden / shape_.heads);
    u32("vocab_size", shape_.vocab);
    out_.set_f32("llama.rope.freq_base", shape_.rope_base);
    out_.set_f32("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  }

  void copy_tokenizer(const io::GgufFile& from) {
    for (const auto& value : from.values()) {
      if (value.key == "tokenizer.ggml.tokens" || value.key == "tokenizer.ggml.token_type")
        continue;
      if (value.key.starts_with("tokenizer.")) out_.copy(value);
    }
    std::vector<std::string> tokens;
    for (auto t : from.get_strings("tokenizer.ggml.tokens")) tokens.emplace_back(t);
    std::vector<std::int32_t> types(tokens.size(), kNormalToken);
    const auto given = from.get_ints("tokenizer.ggml.token_type");
    std::copy(given.begin(), given.end(), types.begin());
    const auto n = static_cast<std::size_t>(shape_.vocab);
    if (tokens.size() > n)
      throw Error(fmt::format("the tokenizer has {} tokens, the shape {}", tokens.size(), n),
                  ErrorKind::usage);
    while (tokens.size() < n)
      tokens.push_back(fmt::format("<|unused_{}|>", tokens.size())), types.push_back(kUnusedToken);
    out_.set_strings("tokenizer.ggml.tokens", tokens);
    out_.set_i32s("tokenizer.ggml.token_type", types);
  }

  // llama.cpp's choice: the first and the last eighth of the layers, and every third between.
  bool more_bits(std::int64_t layer) const {
    const std::int64_t eighth = shape_.layers / 8;
    return layer < eighth || layer >= 7 * eighth || (layer - eighth) % 3 == 2;
  }

  void add(std::string name, std::int64_t rows, std::int64_t cols, bool more) {
    const Format* format =
        type_ == "bf16" ? nullptr : find_format(mixture_ ? (more ? "q6_k" : "q4_k") : type_);
    matrices_.push_back({std::move(name), rows, cols, format});
  }

  void list_tensors() {
    const auto& s = shape_;
    const std::int64_t kv = s.hidden / s.heads * s.kv_heads;
    add("token_embd.weight", s.vocab, s.hidden, s.tied);
    if (!s.tied) add("output.weight", s.vocab, s.hidden, true);
    norms_.push_back({"output_norm.weight", s.hidden});
    for (std::int64_t l = 0; l < s.layers; ++l) {
      const auto name = [&](const char* part) { return fmt::format("blk.{}.{}.weight", l, part); };
      add(name("attn_q"), s.hidden, s.hidden, false);
      add(name("attn_k"), kv, s.hidden, false);
      add(name("attn_v"), kv, s.hidden, more_bits(l));
      add(name("attn_output"), s.hidden, s.hidden, false);
      add(name("ffn_gate"), s.ffn, s.hidden, false);
      add(name("ffn_up"), s.ffn, s.hidden, false);
      add(name("ffn_down"), s.hidden, s.ffn, more_bits(l));
      norms_.push_back({name("attn_norm"), s.hidden});
      norms_.push_back({name("ffn_norm"), s.hidden});
    }
  }

  void append(const Matrix& m, const std::vector<std::byte>& tile) {
    const std::size_t row = tile.size() / RandomRows::kRows;
    for (std::int64_t at = 0; at < m.rows; at += RandomRows::kRows) {
      const auto n = static_cast<std::size_t>(std::min(RandomRows::kRows, m.rows - at));
      out_.append(m.name, std::span(tile).first(n * row));
    }
  }

  ModelShape shape_;
  std::string type_;
  bool mixture_ = false;
  io::GgufWriter out_;
  std::vector<Matrix> matrices_;
  std::vector<std::pair<std::string, std::int64_t>> norms_;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5 && argc != 6) {
    std::fputs("usage: random_model SHAPE TYPE TOKENIZER.gguf OUT.gguf [LAYERS]\n", stderr);
    return 2;
  }
  try {
    Writer(argv[1], argv[2], argv[4], argc == 6 ? argv[5] : nullptr).write(argv[3]);
  } catch (const std::exception& e) {
    fmt::print(stderr, "random_model: {}\n", e.what());
    return 1;
  }
}
