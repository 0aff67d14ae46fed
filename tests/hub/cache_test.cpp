// Settings from the environment, hashes, locks, and the cache's layout on the disk.
// tests/py/test_hub_*.py compare the layout with huggingface_hub; here are the corners.
#include "hub/cache.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>

#include "core/error.h"
#include "hub/download.h"
#include "hub/remove.h"
#include "io/output_file.h"

namespace supersonic::hub {
namespace {

namespace fs = std::filesystem;

Environment environment(std::map<std::string, std::string> values) {
  auto held = std::make_shared<std::map<std::string, std::string>>(std::move(values));
  return [held](const char* name) -> const char* {
    const auto it = held->find(name);
    return it == held->end() ? nullptr : it->second.c_str();
  };
}

struct HubCache : testing::Test {
  fs::path root = fs::path(testing::TempDir()) /
                  ("hub-" + std::to_string(::getpid()) + "-" +
                   testing::UnitTest::GetInstance()->current_test_info()->name());
  Settings settings;
  void SetUp() override {
    fs::remove_all(root);
    settings.cache = (root / "hub").string();
  }
  void TearDown() override { fs::remove_all(root); }
  void put(const Cache& cache, const RepoFile& f, const std::string& content,
           const std::string& commit) {
    io::write_file(cache.blob("a/b", f.etag), content);
    cache.place("a/b", commit, f);
  }
};

TEST(HubSettings, FollowTheVariablesOfHuggingfaceHub) {
  EXPECT_EQ(read_settings(environment({{"HOME", "/h"}})).cache, "/h/.cache/huggingface/hub");
  EXPECT_EQ(read_settings(environment({{"HOME", "/h"}, {"XDG_CACHE_HOME", "/x"}})).cache,
            "/x/huggingface/hub");
  EXPECT_EQ(read_settings(environment({{"HOME", "/h"}, {"HF_HOME", "~/hf/"}})).cache, "/h/hf/hub");
  EXPECT_EQ(read_settings(environment({{"HF_HOME", "/hf"}, {"HF_HUB_CACHE", "/c/"}})).cache, "/c");
  EXPECT_EQ(read_settings(environment({{"HOME", "/h"}})).endpoint, "https://huggingface.co");
  EXPECT_EQ(
      read_settings(environment({{"HOME", "/h"}, {"HF_ENDPOINT", "https://mirror.example/hf//"}}))
          .endpoint,
      "https://mirror.example/hf");
  EXPECT_TRUE(read_settings(environment({{"HOME", "/h"}, {"HF_HUB_OFFLINE", "yes"}})).offline);
  EXPECT_TRUE(read_settings(environment({{"HOME", "/h"}, {"TRANSFORMERS_OFFLINE", "1"}})).offline);
  EXPECT_FALSE(read_settings(environment({{"HOME", "/h"}, {"HF_HUB_OFFLINE", "0"}})).offline);
  EXPECT_EQ(read_settings(environment({{"HOME", "/h"}, {"HF_TOKEN", " hf_x\n"}})).token, "hf_x");
  EXPECT_EQ(read_settings(
                environment(
                    {{"HOME", "/h"}, {"HF_TOKEN", "hf_x"}, {"HF_HUB_DISABLE_IMPLICIT_TOKEN", "1"}}))
                .token,
            "");
}

TEST(HubSettings, WhatCannotBeUsedIsRefused) {
  for (const auto& [name, value] :
       std::map<std::string, std::string>{{"HF_ENDPOINT", "huggingface.co"},
                                          {"HF_TOKEN", "a b"},
                                          {"HF_HUB_DOWNLOAD_TIMEOUT", "soon"},
                                          {"HF_HUB_ETAG_TIMEOUT", "0"}})
    EXPECT_THROW(read_settings(environment({{"HOME", "/h"}, {name, value}})), Error) << name;
  EXPECT_THROW(
      read_settings(environment({{"HOME", "/h"}, {"HF_ENDPOINT", "https://user:password@host"}})),
      Error);
}

// FIPS 180 test vectors, and what git hash-object prints.
TEST(HubDigest, IsSha256AndGitsSha1) {
  const auto sha256 = open_digest(Digest::Kind::sha256), sha1 = open_digest(Digest::Kind::sha1);
  const std::string abc = "abc";
  sha256->update(std::as_bytes(std::span(abc)));
  sha1->update(std::as_bytes(std::span(abc)));
  EXPECT_EQ(sha256->hex(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha1->hex(), "a9993e364706816aba3e25717850c26c9cd0d89d");
  EXPECT_EQ(blob_digest(false, 0)->hex(), "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
  const std::string hello = "hello world\n";
  const auto git = blob_digest(false, hello.size());
  for (const char& c : hello) git->update(std::as_bytes(std::span(&c, 1)));
  EXPECT_EQ(git->hex(), "3b18e512dba79e4c8300dd08aeb37f8e728b8dad");
}

TEST_F(HubCache, LinksLeadToBlobsFromAnyDepth) {
  const Cache cache(settings);
  cache.prepare("a/b");
  const std::string commit(40, 'c');
  const RepoFile deep{"x/y/z.txt", 5, std::string(40, 'd')};
  put(cache, deep, "hello", commit);
  EXPECT_EQ(fs::read_symlink(fs::path(cache.snapshot("a/b", commit)) / "x/y/z.txt"),
            "../../../../blobs/" + std::string(40, 'd'));
  EXPECT_TRUE(cache.has("a/b", commit, deep));
  const auto there = cache.files("a/b", commit);
  ASSERT_EQ(there.size(), 1u);
  EXPECT_EQ(there[0].etag, deep.etag);
  EXPECT_EQ(there[0].size, 5u);
}

TEST_F(HubCache, ARefThatIsNoCommitLeadsNowhere) {
  const Cache cache(settings);
  cache.prepare("a/b");
  cache.set_ref("a/b", "refs/pr/1", std::string(40, 'c'));
  EXPECT_FALSE(cache.commit_of("a/b", "refs/pr/1")) << "its snapshot is not there";
  fs::create_directories(cache.snapshot("a/b", std::string(40, 'c')));
  EXPECT_EQ(cache.commit_of("a/b", "refs/pr/1"), std::string(40, 'c'));
  for (const char* text : {"../../../etc", "", "xyz", "CCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCC"}) {
    io::write_file((root / "hub/models--a--b/refs/main").string(), text);
    EXPECT_FALSE(cache.commit_of("a/b", "main")) << text;
  }
}

TEST_F(HubCache, ALinkOutOfTheBlobsIsNoBlob) {
  const Cache cache(settings);
  cache.prepare("a/b");
  const std::string commit(40, 'c');
  put(cache, {"good", 4, std::string(40, 'd')}, "good", commit);
  std::ofstream(root / "outside") << "outside";
  fs::create_symlink(root / "outside", fs::path(cache.snapshot("a/b", commit)) / "evil");
  const auto there = cache.files("a/b", commit);
  ASSERT_EQ(there.size(), 2u);
  EXPECT_EQ(there[0].path, "evil");
  EXPECT_EQ(there[0].etag, "");
  remove(cache, plan_removal(cache, require_name("a/b")));
  EXPECT_TRUE(fs::exists(root / "outside"));
  EXPECT_FALSE(fs::exists(root / "hub/models--a--b"));
}

TEST_F(HubCache, ALockIsHeldByOne) {
  const Cache cache(settings);
  cache.prepare("a/b");
  EXPECT_FALSE(BlobLock::any(cache, "a/b"));
  const BlobLock first(
      cache, "a/b", "x", [] {}, [] { return true; });
  EXPECT_TRUE(BlobLock::any(cache, "a/b"));
  int said = 0, asked = 0;
  EXPECT_THROW(BlobLock(
                   cache, "a/b", "x", [&] { ++said; }, [&] { return ++asked < 3; }),
               Error);
  EXPECT_EQ(said, 1);
  EXPECT_THROW(remove(cache, plan_removal(cache, require_name("a/b"))), Error);
}

TEST_F(HubCache, FoldersAreNotMadeThroughLinks) {
  fs::create_directories(root / "real");
  fs::create_symlink(root / "real", root / "link");
  make_folders_below(root.string(), "x/y");
  EXPECT_TRUE(fs::is_directory(root / "x/y"));
  EXPECT_THROW(make_folders_below(root.string(), "link/y"), Error);
  EXPECT_TRUE(fs::is_empty(root / "real"));
}

}  // namespace
}  // namespace supersonic::hub
