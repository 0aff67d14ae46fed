// GGUF: malformed headers are refused with the field, well-formed ones read back what the writer
// was given. The Python tests compare both directions with the gguf package.
#include "io/gguf.h"

#include <cstring>
#include <random>

#include "io/gguf_writer.h"
#include "io/model_config.h"
#include "io_test_util.h"

namespace supersonic::io {
namespace {

using io_test::error_of;
using io_test::mentions;
using io_test::TempDir;

// A header made by hand, every field as the specification orders it.
struct Bytes {
  std::string data;
  template <class T>
  Bytes& put(T v) {
    data.append(reinterpret_cast<const char*>(&v), sizeof v);
    return *this;
  }
  Bytes& text(std::string_view s) {
    put<std::uint64_t>(s.size());
    data += s;
    return *this;
  }
  Bytes& header(std::uint64_t tensors, std::uint64_t values, std::uint32_t version = 3) {
    data += "GGUF";
    return put(version).put(tensors).put(values);
  }
  Bytes& u32_value(std::string_view key, std::uint32_t v) {
    return text(key).put<std::uint32_t>(4).put(v);
  }
  Bytes& tensor(std::string_view name, std::vector<std::uint64_t> dims, std::uint32_t type,
                std::uint64_t offset) {
    text(name).put(static_cast<std::uint32_t>(dims.size()));
    for (const auto d : dims) put(d);
    return put(type).put(offset);
  }
  Bytes& payload(std::size_t bytes) {
    data.resize((data.size() + 31) / 32 * 32 + bytes);
    return *this;
  }
  GgufFile parse() const { return GgufFile::parse(std::as_bytes(std::span(data)), "test.gguf"); }
  std::string error() const {
    return error_of([&] { (void)parse(); });
  }
};

Bytes small_file() {
  Bytes b;
  b.header(2, 4).u32_value("a.count", 7).text("a.name").put<std::uint32_t>(8).text("x");
  b.text("a.words")
      .put<std::uint32_t>(9)
      .put<std::uint32_t>(8)
      .put<std::uint64_t>(2)
      .text("one")
      .text("");
  b.text("a.flag").put<std::uint32_t>(7).put<std::uint8_t>(1);
  b.tensor("w", {4, 3}, 0, 0).tensor("v", {5}, 1, 64);
  return b.payload(64 + 10);
}

TEST(Gguf, reads_values_strings_and_row_major_shapes) {
  const Bytes b = small_file();
  const GgufFile f = b.parse();
  EXPECT_EQ(f.get_u32("a.count"), 7u);
  EXPECT_EQ(f.get_string("a.name"), "x");
  EXPECT_EQ(f.get_strings("a.words").to_vector(), (std::vector<std::string_view>{"one", ""}));
  EXPECT_TRUE(f.get_bool("a.flag", false));
  EXPECT_EQ(f.get_u32("missing", 5), 5u);
  EXPECT_EQ(f.tensor("w").shape, (Shape{3, 4}));
  EXPECT_EQ(f.tensor("w").data.size(), 48u);
  EXPECT_EQ(f.tensor("v").dtype, DType::f16);
  EXPECT_EQ(f.find_tensor("u"), nullptr);
}

TEST(Gguf, every_truncation_is_refused) {
  const Bytes whole = small_file();
  ASSERT_NO_THROW(whole.parse());
  for (std::size_t n = 0; n < whole.data.size(); ++n) {
    // An exact copy, so that a sanitizer sees a read past the end.
    const std::vector<char> cut(whole.data.begin(),
                                whole.data.begin() + static_cast<std::ptrdiff_t>(n));
    EXPECT_THROW(GgufFile::parse(std::as_bytes(std::span(cut)), "cut"), Error) << n << " bytes";
  }
}

TEST(Gguf, single_byte_corruption_never_escapes_the_file) {
  const Bytes whole = small_file();
  std::mt19937 random(1);
  for (std::size_t i = 0; i < whole.data.size(); ++i)
    for (const int value : {0x00, 0x01, 0x7f, 0x80, 0xff}) {
      std::string changed = whole.data;
      changed[i] = static_cast<char>(value);
      try {
        const GgufFile f = GgufFile::parse(std::as_bytes(std::span(changed)), "changed");
        for (const auto& t : f.tensors()) {
          ASSERT_GE(reinterpret_cast<const char*>(t.data.data()), changed.data());
          ASSERT_LE(reinterpret_cast<const char*>(t.data.data()) + t.data.size(),
                    changed.data() + changed.size());
        }
      } catch (const Error& e) {
        EXPECT_EQ(static_cast<int>(e.kind()), static_cast<int>(ErrorKind::bad_file));
      }
    }
}

TEST(Gguf, lying_counts_are_refused_before_allocation) {
  constexpr std::uint64_t huge = std::uint64_t{1} << 60;
  EXPECT_TRUE(mentions(Bytes().header(huge, 0).error(), "tensor_count"));
  EXPECT_TRUE(mentions(Bytes().header(0, huge).error(), "metadata_kv_count"));
  EXPECT_TRUE(mentions(Bytes().header(0, ~std::uint64_t{0}).error(), "metadata_kv_count"));
  EXPECT_TRUE(mentions(Bytes().header(0, 1).put<std::uint64_t>(60000).put<std::uint64_t>(0).error(),
                       "60000 bytes"));
  Bytes string, array, words;
  string.header(0, 1).text("k").put<std::uint32_t>(8).put(huge);
  EXPECT_TRUE(mentions(string.error(), "string length"));
  array.header(0, 1).text("k").put<std::uint32_t>(9).put<std::uint32_t>(4).put<std::uint64_t>(
      1u << 30);
  EXPECT_TRUE(mentions(array.error(), "array"));
  words.header(0, 1).text("k").put<std::uint32_t>(9).put<std::uint32_t>(8).put<std::uint64_t>(
      1u << 30);
  EXPECT_TRUE(mentions(words.error(), "array length"));
}

TEST(Gguf, lying_tensors_are_refused) {
  const auto with = [](std::vector<std::uint64_t> dims, std::uint32_t type, std::uint64_t offset) {
    return Bytes().header(1, 0).tensor("t", std::move(dims), type, offset).payload(128).error();
  };
  EXPECT_TRUE(mentions(with({33}, 0, 0), "past the 128 bytes"));
  EXPECT_TRUE(mentions(with({8}, 0, 128), "past the 128 bytes"));
  EXPECT_TRUE(mentions(with({8}, 0, ~std::uint64_t{31}), "past the 128 bytes"));
  EXPECT_TRUE(mentions(with({8}, 0, 8), "not a multiple of general.alignment 32"));
  EXPECT_TRUE(mentions(with({std::uint64_t{1} << 62, 16}, 0, 0), "overflows"));
  EXPECT_TRUE(mentions(with({std::uint64_t{1} << 63}, 0, 0), "out of range"));
  EXPECT_TRUE(mentions(with({0}, 0, 0), "dimension 0"));
  EXPECT_TRUE(mentions(with({1, 1, 1, 1, 1}, 0, 0), "n_dims is 5"));
  EXPECT_TRUE(mentions(with({33}, 8, 0), "not whole q8_0 blocks of 32"));
  EXPECT_TRUE(mentions(with({8}, 25, 0), "i16"));
  EXPECT_TRUE(mentions(with({8}, 4000000000u, 0), "4000000000"));
}

TEST(Gguf, duplicates_overlaps_and_bad_alignment_are_refused) {
  EXPECT_TRUE(mentions(Bytes().header(0, 2).u32_value("k", 1).u32_value("k", 2).error(),
                       "\"k\" stands twice"));
  EXPECT_TRUE(mentions(
      Bytes().header(2, 0).tensor("t", {8}, 0, 0).tensor("t", {8}, 0, 32).payload(64).error(),
      "tensor name \"t\" stands twice"));
  EXPECT_TRUE(mentions(
      Bytes().header(2, 0).tensor("t", {16}, 0, 0).tensor("u", {8}, 0, 32).payload(64).error(),
      "offset 32 lies inside tensor t"));
  EXPECT_TRUE(mentions(
      Bytes().header(2, 0).tensor("t", {8}, 0, 0).tensor("u", {8}, 0, 0).payload(64).error(),
      "lies inside"));
  for (const std::uint32_t alignment : {0u, 1u, 33u, 1u << 31})
    EXPECT_TRUE(mentions(Bytes().header(0, 1).u32_value("general.alignment", alignment).error(),
                         "general.alignment"));
  EXPECT_TRUE(mentions(Bytes().header(0, 0, 1).error(), "version is 1"));
  EXPECT_TRUE(mentions(Bytes().header(0, 0, 0x03000000).error(), "big-endian"));
  EXPECT_TRUE(
      mentions(Bytes().header(0, 1).text("k").put<std::uint32_t>(13).put<std::uint64_t>(0).error(),
               "types 0 to 12"));
  EXPECT_TRUE(
      mentions(Bytes().header(0, 1).text("k").put<std::uint32_t>(7).put<std::uint8_t>(2).error(),
               "a bool holds 2"));
}

TEST(Gguf, access_is_typed_and_ranged) {
  const Bytes b = small_file();
  const GgufFile f = b.parse();
  EXPECT_TRUE(mentions(error_of([&] { (void)f.get_string("a.count"); }),
                       "a.count is of type u32, a string was expected"));
  EXPECT_TRUE(mentions(error_of([&] { (void)f.get_u32("a.name"); }), "an integer was expected"));
  EXPECT_TRUE(mentions(error_of([&] { (void)f.get_float("a.count"); }), "a float was expected"));
  EXPECT_TRUE(
      mentions(error_of([&] { (void)f.get_bool("a.count", true); }), "a bool was expected"));
  EXPECT_TRUE(mentions(error_of([&] { (void)f.get_ints("a.words"); }), "array of 2 string"));
  EXPECT_TRUE(mentions(error_of([&] { (void)f.get_u32("b"); }), "lacks \"b\""));
  Bytes wide;
  wide.header(0, 2)
      .text("i")
      .put<std::uint32_t>(11)
      .put<std::int64_t>(-1)
      .text("u")
      .put<std::uint32_t>(10)
      .put(~std::uint64_t{0});
  const GgufFile w = wide.parse();
  EXPECT_EQ(w.get_i64("i"), -1);
  EXPECT_TRUE(mentions(error_of([&] { (void)w.get_u32("i"); }), "is -1, 0 to 4294967295"));
  EXPECT_TRUE(mentions(error_of([&] { (void)w.get_i64("u"); }), "too large"));
}

TEST(GgufWriter, reads_back_and_leaves_nothing_when_abandoned) {
  const TempDir dir;
  const std::vector<float> data{1, 2, 3, 4, 5, 6};
  const auto bytes = std::as_bytes(std::span(data));
  {
    GgufWriter out(dir / "a.gguf");
    out.set_string("general.architecture", "llama");
    out.set_strings("words", std::vector<std::string>{"", "b", "cc"});
    out.set_f32s("scores", std::vector<float>{0.5f, -1.0f});
    out.set_bool("flag", true);
    out.declare("w", {2, 3}, DType::f32);
    out.declare("v", {3}, DType::f32);
    out.append("w", bytes.first(10));
    EXPECT_FALSE(std::filesystem::exists(dir / "a.gguf"));
    out.append("w", bytes.subspan(10));
    EXPECT_TRUE(
        mentions(error_of([&] { out.append("w", bytes); }, ErrorKind::failure), "v is next"));
    EXPECT_TRUE(mentions(error_of([&] { out.finish(); }, ErrorKind::failure),
                         "tensor v has 0 of 12 bytes"));
    EXPECT_THROW(out.append("v", bytes), Error);
    out.append("v", bytes.first(12));
    out.finish();
  }
  EXPECT_EQ(dir.entries(), 1u);
  const auto f = GgufFile::open(dir / "a.gguf");
  EXPECT_EQ(f.get_strings("words").to_vector(), (std::vector<std::string_view>{"", "b", "cc"}));
  EXPECT_EQ(f.get_floats("scores"), (std::vector<float>{0.5f, -1.0f}));
  EXPECT_EQ(f.tensor("w").shape, (Shape{2, 3}));
  EXPECT_EQ(std::memcmp(f.tensor("w").data.data(), data.data(), 24), 0);
  EXPECT_EQ(std::memcmp(f.tensor("v").data.data(), data.data(), 12), 0);
  {
    GgufWriter out(dir / "b.gguf");
    out.declare("w", {2, 3}, DType::f32);
    out.append("w", bytes.first(4));
  }
  EXPECT_EQ(dir.entries(), 1u) << "an abandoned file must vanish";
}

TEST(GgufWriter, refuses_what_other_loaders_would) {
  const TempDir dir;
  GgufWriter out(dir / "a.gguf");
  out.declare("w", {1}, DType::f32);
  EXPECT_THROW(out.declare("w", {1}, DType::f32), Error);
  EXPECT_THROW(out.declare(std::string(64, 'x'), {1}, DType::f32), Error);
  EXPECT_THROW(out.declare("u", {1}, DType::u8), Error);
  EXPECT_THROW(out.declare("five", {1, 1, 1, 1, 1}, DType::f32), Error);
  out.set_u32("k", 1);
  EXPECT_THROW(out.set_u32("k", 1), Error);
  EXPECT_EQ(dir.entries(), 0u) << "nothing is created before data arrives";
}

// Sizes that others index fixed tables with, or divide by, before they look at them.
TEST(GgufConfig, sizes_that_no_model_has_are_refused_by_name) {
  const auto file = [](std::string_view key, std::uint32_t value) {
    Bytes b;
    std::vector<std::pair<std::string, std::uint32_t>> keys = {
        {"llama.context_length", 64},      {"llama.embedding_length", 64},
        {"llama.block_count", 2},          {"llama.feed_forward_length", 128},
        {"llama.attention.head_count", 4}, {"llama.attention.head_count_kv", 2},
        {"llama.vocab_size", 100}};
    for (auto& [name, n] : keys)
      if (name == key) n = value;
    b.header(0, keys.size() + 2).text("general.architecture").put<std::uint32_t>(8).text("llama");
    b.text("llama.attention.layer_norm_rms_epsilon").put<std::uint32_t>(6).put(1e-5f);
    for (const auto& [name, n] : keys) b.u32_value(name, n);
    return b;
  };
  const auto refusal = [&](std::string_view key, std::uint32_t value) {
    return error_of([&] { (void)model_config_from_gguf(file(key, value).parse()); });
  };
  EXPECT_NO_THROW((void)model_config_from_gguf(file("", 0).parse()));
  for (const std::uint32_t value : {0u, 4'000'000'000u})
    for (const char* key :
         {"llama.block_count", "llama.embedding_length", "llama.feed_forward_length",
          "llama.attention.head_count", "llama.vocab_size"})
      EXPECT_NE(refusal(key, value), "") << key << " " << value;
  EXPECT_TRUE(mentions(refusal("llama.block_count", 4'000'000'000u), "block_count"));
  EXPECT_NE(refusal("llama.attention.head_count", 3), "") << "64 is not 3 heads";
  EXPECT_NE(refusal("llama.attention.head_count_kv", 3), "") << "4 heads do not share 3";
}

TEST(GgufConfig, writes_and_reads_the_same_model) {
  const TempDir dir;
  ModelConfig c;
  c.family = "qwen2";
  c.hidden_size = 64, c.intermediate_size = 160, c.num_hidden_layers = 2, c.num_attention_heads = 4;
  c.num_key_value_heads = 2, c.head_dim = 32, c.vocab_size = 10, c.max_position_embeddings = 512;
  c.rms_norm_eps = 1e-5f, c.rope_theta = 1e6;
  c.rope_scaling.kind = RopeScaling::Kind::yarn;
  c.rope_scaling.factor = 4, c.rope_scaling.original_max_position = 128,
  c.rope_scaling.attention_factor = 1.25;
  GgufWriter out(dir / "c.gguf");
  write_gguf_config(out, c);
  out.set_u32("tokenizer.ggml.eos_token_id", 2);
  out.set_u32("tokenizer.ggml.eot_token_id", 5);
  out.set_u32("tokenizer.ggml.eom_token_id", 2);
  out.finish();
  const ModelConfig r = model_config_from_gguf(GgufFile::open(dir / "c.gguf"));
  EXPECT_EQ(r.family, "qwen2");
  EXPECT_EQ(r.eos_token_ids, (std::vector<std::int64_t>{2, 5}));
  EXPECT_EQ(r.head_dim, 32);
  EXPECT_EQ(r.num_key_value_heads, 2);
  EXPECT_EQ(r.intermediate_size, 160);
  EXPECT_EQ(r.rms_norm_eps, c.rms_norm_eps);
  EXPECT_EQ(r.rope_theta, 1e6);
  EXPECT_EQ(name_of(r.rope_scaling.kind), "yarn");
  EXPECT_NEAR(r.rope_scaling.attention_factor, 1.25, 1e-6);  // stored as float
}

}  // namespace
}  // namespace supersonic::io
