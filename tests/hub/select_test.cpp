// Which files of a repository are the model, on lists as real repositories have them; and lists
// that lie.
#include <gtest/gtest.h>

#include <algorithm>

#include "core/error.h"
#include "hub/listing.h"

namespace supersonic::hub {
namespace {

std::vector<RepoFile> files(std::initializer_list<const char*> paths) {
  std::vector<RepoFile> out;
  std::uint64_t size = 100;
  for (const char* path : paths) out.push_back({path, size++, std::string(40, 'a')});
  return out;
}

std::vector<std::string> paths(const Selection& s) {
  std::vector<std::string> out;
  for (const RepoFile& f : s.files) out.push_back(f.path);
  std::sort(out.begin(), out.end());
  return out;
}
using Paths = std::vector<std::string>;

TEST(HubSelect, TypesAreReadFromNames) {
  const std::pair<const char*, const char*> names[] = {
      {"Llama-3.2-1B-Instruct-Q4_K_M.gguf", "Q4_K_M"},
      {"qwen2.5-0.5b-instruct-q8_0.gguf", "Q8_0"},
      {"model-UD-IQ2_XXS.gguf", "UD-IQ2_XXS"},
      {"gemma-3-270m-it-BF16.gguf", "BF16"},
      {"gpt-oss-20b-mxfp4.gguf", "MXFP4"},
      {"SmolLM2.Q4_1.gguf", "Q4_1"},
      {"x/Q8_0/DeepSeek-Q8_0-00001-of-00015.gguf", "Q8_0"},
      {"Phi-3-mini-4k-instruct-fp16.gguf", ""},
      {"ggml-model-IQ4_XS.gguf", "IQ4_XS"},
      {"TriLM-TQ1_0.gguf", "TQ1_0"},
      {"Q4_K_M-model-Q5_K_S.gguf", "Q5_K_S"},
      {"Qwen3-8B-f16.gguf", "F16"},
      {"Qwen3.gguf", ""},
      {"EQ4_K_Mx.gguf", ""},
      {"a-Q2_K_L.gguf", "Q2_K_L"}};
  for (const auto& [name, type] : names) EXPECT_EQ(gguf_type(name), type) << name;
}

TEST(HubSelect, AFolderIsConfigTokenizerAndSafetensors) {
  const Selection s =
      select_files(files({".gitattributes", "LICENSE", "README.md", "config.json",
                          "generation_config.json", "merges.txt", "model.safetensors",
                          "onnx/model.onnx", "original/consolidated.00.pth", "pytorch_model.bin",
                          "tokenizer.json", "tokenizer_config.json", "vocab.json", "runs/events"}),
                   "", "a/b");
  EXPECT_EQ(s.kind, Selection::Kind::folder);
  EXPECT_EQ(paths(s),
            (Paths{"LICENSE", "README.md", "config.json", "generation_config.json", "merges.txt",
                   "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.json"}));
}

TEST(HubSelect, WeightsAreTakenOnce) {
  const auto all =
      files({"config.json", "consolidated.safetensors", "model-00001-of-00002.safetensors",
             "model-00002-of-00002.safetensors", "model.safetensors.index.json",
             "consolidated-00001-of-00002.safetensors"});
  EXPECT_EQ(paths(select_files(all, "", "a/b")),
            (Paths{"config.json", "model-00001-of-00002.safetensors",
                   "model-00002-of-00002.safetensors", "model.safetensors.index.json"}));
  EXPECT_EQ(paths(select_files(
                files({"config.json", "model.fp16.safetensors", "model.safetensors"}), "", "a/b")),
            (Paths{"config.json", "model.safetensors"}));
}

TEST(HubSelect, SafetensorsComeBeforeGgufAndAdaptersAreTold) {
  const Selection s =
      select_files(files({"config.json", "model.safetensors", "m-Q8_0.gguf"}), "", "a/b");
  EXPECT_EQ(s.kind, Selection::Kind::folder);
  EXPECT_EQ(s.others, Paths{"Q8_0"});
  const Selection adapter =
      select_files(files({"README.md", "adapter_config.json", "adapter_model.safetensors",
                          "tokenizer.json", "training_args.bin"}),
                   "", "a/b");
  EXPECT_EQ(adapter.kind, Selection::Kind::adapter);
  EXPECT_EQ(paths(adapter), (Paths{"README.md", "adapter_config.json", "adapter_model.safetensors",
                                   "tokenizer.json"}));
}

TEST(HubSelect, OfGgufFilesAboutFourBitsAreTaken) {
  const Selection s = select_files(files({"README.md", "m-F16.gguf", "m-Q2_K.gguf", "m-Q4_0.gguf",
                                          "m-Q4_K_M.gguf", "m-Q8_0.gguf", "mmproj-m-F16.gguf"}),
                                   "", "a/b");
  EXPECT_EQ(s.main, "m-Q4_K_M.gguf");
  EXPECT_TRUE(s.chosen_here);
  EXPECT_EQ(s.others.size(), 4u);
  EXPECT_EQ(select_files(files({"only-unheard-of.gguf"}), "", "a/b").main, "only-unheard-of.gguf");
}

TEST(HubSelect, ASplitSetIsOneModel) {
  auto list = files({"Q6_K/m-Q6_K-00002-of-00003.gguf", "Q6_K/m-Q6_K-00001-of-00003.gguf",
                     "Q6_K/m-Q6_K-00003-of-00003.gguf", "m-Q6_K-00001-of-00002.gguf"});
  const Selection s = select_files(list, "Q6_K/m-Q6_K-00002-of-00003.gguf", "a/b");
  EXPECT_EQ(s.main, "Q6_K/m-Q6_K-00001-of-00003.gguf");
  EXPECT_EQ(s.files.size(), 3u);
  EXPECT_TRUE(s.complete);
  EXPECT_FALSE(select_files(list, "m-Q6_K-00001-of-00002.gguf", "a/b").complete);
  EXPECT_THROW(select_files(list, "Q6_K", "a/b"), Error);  // two models of this type
}

std::string tree(const std::string& entry) { return "[" + entry + "]"; }
const std::string kSha1(40, 'a'), kSha256(64, 'b');

TEST(HubTree, FilesHaveTheHashOfTheirContent) {
  const auto list = parse_tree(
      R"([{"type":"directory","oid":"x","size":0,"path":"d"},{"type":"file","path":"d/a","size":3,"oid":")" +
          kSha1 + R"("},{"type":"file","path":"w","size":134,"oid":")" + kSha1 +
          R"(","lfs":{"oid":")" + kSha256 + R"(","size":9,"pointerSize":134}}])",
      "list");
  ASSERT_EQ(list.size(), 2u);
  EXPECT_EQ(list[0].etag, kSha1);
  EXPECT_FALSE(list[0].large());
  EXPECT_EQ(list[1].etag, kSha256);
  EXPECT_EQ(list[1].size, 9u);
  EXPECT_TRUE(list[1].large());
}

TEST(HubTree, WhatLiesIsRefused) {
  const std::string good = R"({"type":"file","path":"a","size":1,"oid":")" + kSha1 + "\"}";
  EXPECT_EQ(parse_tree(tree(good), "list").size(), 1u);
  for (const std::string& bad :
       {std::string("{}"), std::string("[1]"), std::string("[[]]"), tree(good) + "]",
        tree(R"({"type":"file"})"),
        tree(R"({"type":"file","path":"../a","size":1,"oid":")" + kSha1 + "\"}"),
        tree(R"({"type":"file","path":"a","size":-1,"oid":")" + kSha1 + "\"}"),
        tree(R"({"type":"file","path":"a","size":1e30,"oid":")" + kSha1 + "\"}"),
        tree(R"({"type":"file","path":"a","size":1,"oid":"../../etc/passwd"})"),
        tree(R"({"type":"file","path":"a","size":1,"oid":")" + kSha1 +
             R"(","lfs":{"oid":"b","size":1}})"),
        tree(R"({"type":"file","path":"a","size":1,"oid":")" + kSha1 + R"(","lfs":7})"),
        tree(R"({"type":"file","path":["a"],"size":1})")})
    EXPECT_THROW(parse_tree(bad, "list"), Error) << bad;
  auto twice = files({"a", "b", "a"}), inside = files({"a", "a/b"});
  EXPECT_THROW(check_tree(twice, "list"), Error);
  EXPECT_THROW(check_tree(inside, "list"), Error);
}

}  // namespace
}  // namespace supersonic::hub
