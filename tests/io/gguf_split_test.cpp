// Split models: any part opens all of them; what is missing, renamed or inconsistent is refused
// with the file's name. Parts that gguf-py wrote are read in tests/py/test_io.py.
#include "io/gguf_split.h"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <functional>

#include "core/error.h"
#include "io/gguf.h"
#include "io/gguf_writer.h"
#include "io_test_util.h"

namespace supersonic::io {
namespace {

namespace fs = std::filesystem;

struct Part {
  std::uint16_t no, count;
  std::int32_t tensors = 3;
  std::vector<std::string> names;
};

// Parts of three tensors a, b, c of two floats each, which hold the part's number.
void write_part(const std::string& path, const Part& part) {
  GgufWriter out(path);
  if (part.no == 0) out.set_string("general.name", "whole");
  out.set_u16("split.no", part.no);
  out.set_u16("split.count", part.count);
  out.set_i32("split.tensors.count", part.tensors);
  for (const auto& name : part.names) out.declare(name, {2}, DType::f32);
  const float values[2] = {static_cast<float>(part.no), 1};
  for (const auto& name : part.names) out.append(name, std::as_bytes(std::span(values)));
  out.finish();
}

struct Split : ::testing::Test {
  io_test::TempDir dir;
  std::string path(int no, int count = 3) const {
    return split_name(dir / "m", static_cast<std::uint32_t>(no), static_cast<std::uint32_t>(count));
  }
  void write(const Part& part) { write_part(path(part.no), part); }
  void write_all() {
    write({0, 3, 3, {"b"}});
    write({1, 3, 3, {"c"}});
    write({2, 3, 3, {"a"}});
  }
  std::string error(const std::string& file) const {
    try {
      GgufFile::open(file);
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::bad_file);
      return e.what();
    }
    return "";
  }
  void expect_error(const std::string& file, std::initializer_list<std::string> words) const {
    const std::string message = error(file);
    for (const auto& word : words)
      EXPECT_NE(message.find(word), std::string::npos) << message << "\nlacks " << word;
  }
};

TEST(SplitName, IsTheOneOfGgufSplit) {
  EXPECT_EQ(split_name("dir/m", 0, 3), "dir/m-00001-of-00003.gguf");
  const auto name = parse_split_name("dir/m-q4-00012-of-00345.gguf");
  ASSERT_TRUE(name);
  EXPECT_EQ(name->prefix, "dir/m-q4");
  EXPECT_EQ(name->no, 11u);
  EXPECT_EQ(name->count, 345u);
  for (const char* other :
       {"m.gguf", "m-00001-of-00003", "m-0001-of-0003.gguf", "m-00000-of-00003.gguf",
        "m-00004-of-00003.gguf", "m-00001_of-00003.gguf", "m_00001-of-00003.gguf",
        "m-0000a-of-00003.gguf", "m-00001-of-65536.gguf", "-00001.gguf", ""})
    EXPECT_FALSE(parse_split_name(other)) << other;
}

TEST_F(Split, AnyPartOpensAll) {
  write_all();
  for (int given = 0; given < 3; ++given) {
    const GgufFile f = GgufFile::open(path(given));
    EXPECT_EQ(f.path(), path(0));
    EXPECT_EQ(f.get_string("general.name"), "whole");
    ASSERT_EQ(f.tensors().size(), 3u);
    const std::pair<const char*, float> expected[] = {{"a", 2.0f}, {"b", 0.0f}, {"c", 1.0f}};
    for (const auto& [name, value] : expected) {
      float first;
      std::memcpy(&first, f.tensor(name).data.data(), sizeof first);
      EXPECT_EQ(first, value) << name;
    }
  }
}

TEST_F(Split, AMissingPartIsNamed) {
  write_all();
  fs::remove(path(1));
  expect_error(path(2), {"m-00002-of-00003.gguf: is missing", "fetch it"});
}

TEST_F(Split, ARenamedPartIsRefused) {
  write_all();
  fs::copy_file(path(1), dir / "other.gguf");
  expect_error(dir / "other.gguf", {"other.gguf: is part 2", "-00001-of-00003.gguf"});
  fs::rename(path(1), path(0) + ".tmp");
  fs::rename(path(2), path(1));
  fs::rename(path(0) + ".tmp", path(2));
  expect_error(path(0), {"m-00002-of-00003.gguf: split.no is 2", "1 and 3 were expected"});
}

TEST_F(Split, PartsOfDifferentModelsAreRefused) {
  write_all();
  write({2, 4, 3, {"a"}});
  expect_error(path(0), {"m-00003-of-00003.gguf: split.no is 2 and split.count 4"});
  expect_error(path(2), {"name does not end in -00001-of-00004.gguf"});
}

TEST_F(Split, EveryTensorIsThereOnce) {
  write({0, 3, 4, {"b"}});
  write({1, 3, 4, {"c"}});
  write({2, 3, 4, {"a"}});
  expect_error(path(0), {"split.tensors.count is 4", "3 tensors"});
  write({0, 3, 3, {"a"}});
  expect_error(path(0), {"\"a\" stands in two parts"});
}

TEST_F(Split, WrongTypesOfTheKeysAreRefused) {
  const std::string file = path(0);
  const auto with = [&](const std::function<void(GgufWriter&)>& set) {
    fs::remove(file);
    GgufWriter out(file);
    set(out);
    out.finish();
  };
  with([](GgufWriter& w) { w.set_string("split.count", "3"); });
  expect_error(file, {"split.count", "an integer was expected"});
  with([](GgufWriter& w) { w.set_i32("split.count", -3); });
  expect_error(file, {"split.count is -3"});
  with([](GgufWriter& w) {
    w.set_u16("split.count", 3);
    w.set_f32("split.no", 0);
  });
  for (int no : {1, 2}) write({static_cast<std::uint16_t>(no), 3, 0, {}});
  expect_error(file, {"split.no", "an integer was expected"});
  with([](GgufWriter& w) {
    w.set_u16("split.count", 3);
    w.set_u16("split.no", 0);
  });
  expect_error(file, {"lacks \"split.tensors.count\""});
}

// What llama.cpp's older converters wrote into files that are whole.
TEST_F(Split, OneOfOneIsAnOrdinaryFile) {
  write_part(dir / "whole.gguf", {0, 1, 1, {"a"}});
  EXPECT_EQ(GgufFile::open(dir / "whole.gguf").tensors().size(), 1u);
  write_part(dir / "none.gguf", {0, 0, 1, {"a"}});
  EXPECT_EQ(GgufFile::open(dir / "none.gguf").tensors().size(), 1u);
}

}  // namespace
}  // namespace supersonic::io
