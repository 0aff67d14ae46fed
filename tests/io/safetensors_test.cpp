// safetensors: the reference implementation's rules, one lie at a time; writing and sharding. The
// Python tests compare both directions with the safetensors package.
#include "io/safetensors.h"

#include <cstring>
#include <fstream>

#include "io_test_util.h"

namespace supersonic::io {
namespace {

using io_test::error_of;
using io_test::mentions;
using io_test::TempDir;

std::string file_of(const std::string& header, std::size_t data_bytes) {
  const std::uint64_t length = header.size();
  return std::string(reinterpret_cast<const char*>(&length), 8) + header +
         std::string(data_bytes, '\1');
}
SafeTensors parse(const std::string& bytes) {
  return SafeTensors::parse(std::as_bytes(std::span(bytes)), "t.safetensors");
}
std::string error(const std::string& header, std::size_t data_bytes) {
  const std::string bytes = file_of(header, data_bytes);
  return error_of([&] { (void)parse(bytes); });
}

constexpr const char* kTwo =
    R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
    R"("b":{"dtype":"F8_E4M3","shape":[4],"data_offsets":[24,28]}})";

TEST(SafeTensors, reads_tensors_and_refuses_an_unknown_dtype_only_when_asked) {
  const std::string bytes = file_of(kTwo, 28);
  const auto f = parse(bytes);
  EXPECT_EQ(f.get("a").shape, (Shape{2, 3}));
  EXPECT_EQ(f.get("a").data.size(), 24u);
  EXPECT_EQ(f.metadata().at(0).second, "pt");
  EXPECT_EQ(f.find("b")->data.size(), 4u);
  EXPECT_TRUE(mentions(error_of([&] { (void)f.get("b"); }), "F8_E4M3"));
  EXPECT_TRUE(mentions(error_of([&] { (void)f.get("c"); }), "no tensor \"c\""));
}

TEST(SafeTensors, every_truncation_and_any_addition_is_refused) {
  const std::string whole = file_of(kTwo, 28);
  for (std::size_t n = 0; n < whole.size(); ++n) {
    const std::vector<char> cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(n));
    EXPECT_THROW(SafeTensors::parse(std::as_bytes(std::span(cut)), "cut"), Error) << n;
  }
  EXPECT_TRUE(mentions(error_of([&] { (void)parse(whole + "x"); }), "the file holds 29"));
}

TEST(SafeTensors, lies_are_refused) {
  const auto one = [](const std::string& fields, std::size_t bytes) {
    return error(R"({"a":{)" + fields + "}}", bytes);
  };
  EXPECT_TRUE(mentions(one(R"("dtype":"F32","shape":[2],"data_offsets":[0,4])", 4),
                       "do not make the 4 bytes"));
  EXPECT_TRUE(
      mentions(one(R"("dtype":"F32","shape":[1],"data_offsets":[0,8])", 4), "outside the 4 bytes"));
  EXPECT_TRUE(mentions(one(R"("dtype":"F32","shape":[1],"data_offsets":[4,0])", 4), "a hole"));
  EXPECT_TRUE(mentions(one(R"("dtype":"F32","shape":[1],"data_offsets":[4,8])", 8), "a hole"));
  EXPECT_TRUE(
      mentions(one(R"("dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0])", 0),
               "do not make"));
  EXPECT_TRUE(
      mentions(one(R"("dtype":"F32","shape":[-1],"data_offsets":[0,4])", 4), "a negative number"));
  EXPECT_TRUE(
      mentions(one(R"("dtype":"F32","shape":[1.5],"data_offsets":[0,4])", 4), "a fraction"));
  EXPECT_TRUE(
      mentions(one(R"("dtype":"F32","shape":[1],"data_offsets":[0])", 4), "2 were expected"));
  EXPECT_TRUE(
      mentions(one(R"("dtype":"F32","shape":[1],"data_offsets":[0,4,8])", 4), "more than 2"));
  EXPECT_TRUE(mentions(one(R"("dtype":"F32","shape":[1])", 4), "are needed"));
  EXPECT_TRUE(mentions(one(R"("dtype":4,"shape":[1],"data_offsets":[0,4])", 4), "a number"));
  EXPECT_TRUE(mentions(one(R"("dtype":"F32","shape":[[1]],"data_offsets":[0,4])", 4), "an array"));
  EXPECT_TRUE(mentions(one(R"("dtype":"F4","shape":[1],"data_offsets":[0,1])", 1), "do not make"));
  const std::string tensor = R"({"dtype":"U8","shape":[4],"data_offsets":[0,4]})";
  EXPECT_TRUE(mentions(error("{\"a\":" + tensor + ",\"b\":" + tensor + "}", 4), "an overlap"));
  EXPECT_TRUE(mentions(
      error("{\"a\":" + tensor + ",\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[4,5]}}",
            5),
      "twice"));
  EXPECT_TRUE(mentions(error("[]", 0), "does not start with '{'"));
  EXPECT_TRUE(mentions(error("{\"a\":", 0), "not valid JSON"));
  EXPECT_TRUE(mentions(error("{} x", 0), "not valid JSON"));
  EXPECT_TRUE(mentions(error(R"({"a":5})", 0), "a number"));
  EXPECT_TRUE(mentions(error(R"({"__metadata__":{"k":5}})", 0), "__metadata__"));
  std::string huge(8, '\xff');
  EXPECT_TRUE(mentions(error_of([&] { (void)parse(huge); }), "at most 100000000"));
}

TEST(SafeTensors, unknown_fields_are_skipped_and_their_nesting_is_bounded) {
  const auto with = [](const std::string& extra) {
    return file_of(R"({"a":{"x":)" + extra + R"(,"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
                   1);
  };
  EXPECT_NO_THROW(parse(with(R"([1,{"dtype":"F32","y":[null,true,"s",2.5]}])")));
  EXPECT_NO_THROW(parse(with(R"({"shape":[9]})")));
  EXPECT_THROW(parse(with(std::string(1000, '[') + std::string(1000, ']'))), Error);
}

std::span<const std::byte> bytes_of(const std::vector<float>& v) {
  return std::as_bytes(std::span(v));
}

void write_three(const std::string& stem, std::uint64_t max_shard_bytes) {
  SafeTensorsWriter out(stem, max_shard_bytes);
  const std::vector<float> a{1, 2, 3, 4}, c{5, 6};
  out.declare("a", {2, 2}, DType::f32);
  out.declare("none", {0, 3}, DType::f16);
  out.declare("c", {2}, DType::f32);
  out.append("a", bytes_of(a).first(3));
  out.append("a", bytes_of(a).subspan(3));
  out.append("c", bytes_of(c));
  out.finish();
}

TEST(SafeTensorsWriter, writes_one_aligned_file) {
  const TempDir dir;
  write_three(dir / "model", 1 << 20);
  EXPECT_EQ(dir.entries(), 1u);
  const auto f = SafeTensors::open(dir.path());
  EXPECT_EQ(f.metadata().at(0), (std::pair<std::string, std::string>{"format", "pt"}));
  EXPECT_EQ(f.get("none").shape, (Shape{0, 3}));
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(f.get("a").data.data()) % 8, 0u);
  float c[2];
  std::memcpy(c, f.get("c").data.data(), sizeof c);
  EXPECT_EQ(c[1], 6.0f);
}

TEST(SafeTensorsWriter, shards_by_size_with_an_index_and_a_missing_shard_is_found) {
  const TempDir dir;
  write_three(dir / "model", 16);
  EXPECT_TRUE(std::filesystem::exists(dir / "model-00001-of-00002.safetensors"));
  const auto f = SafeTensors::open(dir.path());
  EXPECT_EQ(f.files().size(), 2u);
  EXPECT_EQ(f.get("c").data.size(), 8u);
  std::filesystem::remove(dir / "model-00002-of-00002.safetensors");
  EXPECT_TRUE(
      mentions(error_of([&] { (void)SafeTensors::open(dir.path()); }), "model-00002-of-00002"));
  std::ofstream(dir / "model.safetensors.index.json")
      << R"({"weight_map":{"a":"../../etc/passwd"}})";
  EXPECT_TRUE(mentions(error_of([&] { (void)SafeTensors::open(dir.path()); }), "plain file name"));
}

TEST(SafeTensorsWriter, leaves_nothing_when_abandoned) {
  const TempDir dir;
  {
    SafeTensorsWriter out(dir / "model");
    out.declare("a", {4}, DType::f32);
    out.append("a", std::as_bytes(std::span("abcd", 4)));
    EXPECT_TRUE(
        mentions(error_of([&] { out.finish(); }, ErrorKind::failure), "a has 4 of 16 bytes"));
  }
  EXPECT_EQ(dir.entries(), 0u);
  EXPECT_TRUE(mentions(error_of([&] { (void)SafeTensors::open(dir.path()); }),
                       "neither model.safetensors"));
}

}  // namespace
}  // namespace supersonic::io
