// The option parser: every way to write a value, precedence, hints and refusals.
#include "cli/options.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <map>

#include "core/error.h"

namespace supersonic::cli {
namespace {

struct Sample {
  std::string model, method = "auto", config;
  std::vector<std::string> stop, targets = {"all-linear"};
  std::vector<std::string> files;
  int rank = 16, verbose = 0;
  double lr = 2e-4;
  bool packing = true, json = false;
  std::optional<int> batch;
  Bytes memory{0};
  Options options{"train"};

  explicit Sample(bool with_files = false) {
    options.positional("model", model, "model").letter('m').required();
    if (with_files) options.positional("files", files, "files");
    options.add("method", method, "method").choices({"auto", "lora", "qlora"});
    options.add("rank", rank, "rank").letter('r').range(1, 4096);
    options.add("lr", lr, "rate").at_least(0);
    options.add("packing", packing, "pack");
    options.add("json", json, "json").letter('j');
    options.add("batch", batch, "rows");
    options.add("memory", memory, "budget");
    options.add("stop", stop, "stop");
    options.add("targets", targets, "layers").commas();
    options.add("config", config, "file").letter('c');
    options.count("verbose", verbose, "more").letter('v');
  }
  void parse(std::vector<const char*> arguments,
             std::map<std::string, std::string> environment = {}) {
    options.parse(arguments, [&](const char* name) -> const char* {
      const auto found = environment.find(name);
      return found == environment.end() ? nullptr : found->second.c_str();
    });
  }
  static std::string refusal(std::vector<const char*> arguments,
                             std::map<std::string, std::string> environment = {}) {
    try {
      Sample().parse(std::move(arguments), std::move(environment));
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::usage);
      return e.what();
    }
    return "accepted";
  }
};

std::string write_config(const std::string& text) {
  const std::string path = testing::TempDir() + "supersonic_options_test.yaml";
  std::ofstream(path) << text;
  return path;
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST(Options, ReadsEveryWayToWriteAValue) {
  Sample s;
  s.parse({"model.gguf", "--rank", "8", "--lr=1e-3", "--no-packing", "-j", "--batch=4", "--memory",
           "1.5GiB", "-vv"});
  EXPECT_EQ(s.model, "model.gguf");
  EXPECT_EQ(s.rank, 8);
  EXPECT_EQ(s.lr, 1e-3);
  EXPECT_FALSE(s.packing);
  EXPECT_TRUE(s.json);
  EXPECT_EQ(s.batch, 4);
  EXPECT_EQ(s.memory.count, 1610612736u);
  EXPECT_EQ(s.verbose, 2);
}

TEST(Options, ShortOptionsJoinTheirValueAndEachOther) {
  Sample s;
  s.parse({"-jvr32", "-m", "a"});
  EXPECT_TRUE(s.json);
  EXPECT_EQ(s.verbose, 1);
  EXPECT_EQ(s.rank, 32);
  EXPECT_EQ(s.model, "a");
}

TEST(Options, NegativeNumbersAndDashesAreValues) {
  Sample s;
  s.parse({"-", "--stop", "-x", "--stop=--lr", "--batch", "-1"});
  EXPECT_EQ(s.model, "-");
  EXPECT_EQ(s.stop, (std::vector<std::string>{"-x", "--lr"}));
  EXPECT_EQ(s.batch, -1);
}

TEST(Options, AfterTwoDashesEverythingIsPositional) {
  Sample s(true);
  s.parse({"a", "--", "--rank", "-v"});
  EXPECT_EQ(s.files, (std::vector<std::string>{"--rank", "-v"}));
  EXPECT_EQ(s.rank, 16);
}

TEST(Options, AModelByFlagLeavesThePositionalArgumentsToTheRest) {
  Sample s(true);
  s.parse({"one", "-m", "a", "two"});
  EXPECT_EQ(s.model, "a");
  EXPECT_EQ(s.files, (std::vector<std::string>{"one", "two"}));
}

TEST(Options, ListsSplitAtCommasOnlyWhereTheyShould) {
  Sample s;
  s.parse({"a", "--targets", "q_proj,v_proj", "--stop", "a,b", "--stop", "c"});
  EXPECT_EQ(s.targets, (std::vector<std::string>{"q_proj", "v_proj"}));
  EXPECT_EQ(s.stop, (std::vector<std::string>{"a,b", "c"}));
}

TEST(Options, FlagsWinOverEnvironmentOverConfigOverModelOverBuiltIn) {
  const std::string config = write_config("rank: 2\nlr: 0.5\nmethod: lora\nbatch: 7\n");
  Sample s;
  s.parse({"a", "--rank", "8", "-c", config.c_str()},
          {{"SUPERSONIC_RANK", "4"}, {"SUPERSONIC_LR", "0.25"}});
  EXPECT_EQ(s.rank, 8);
  EXPECT_EQ(s.lr, 0.25);
  EXPECT_EQ(s.method, "lora");
  s.options.model_default("batch", std::optional<int>(9));
  s.options.model_default("memory", Bytes{5});
  EXPECT_EQ(s.batch, 7);
  EXPECT_EQ(s.memory.count, 5u);
  EXPECT_TRUE(s.options.given("method"));
  EXPECT_FALSE(s.options.given("memory"));
}

TEST(Options, AHigherSourceReplacesAList) {
  const std::string config = write_config("stop: [x, y]\ntargets: [q_proj, k_proj]\n");
  Sample s;
  s.parse({"a", "--stop", "z", "-c", config.c_str()});
  EXPECT_EQ(s.stop, (std::vector<std::string>{"z"}));
  EXPECT_EQ(s.targets, (std::vector<std::string>{"q_proj", "k_proj"}));
}

TEST(Options, AnEmptyListInTheConfigIsAnEmptyList) {
  Sample s;
  s.parse({"a", "-c", write_config("targets: []\n").c_str()});
  EXPECT_TRUE(s.targets.empty());
}

TEST(Options, UnknownOptionsGetTheNearestMatch) {
  Sample s;
  EXPECT_TRUE(contains(s.refusal({"a", "--rnak", "8"}), "did you mean '--rank'?"));
  EXPECT_TRUE(contains(s.refusal({"a", "--no-packin"}), "did you mean '--no-packing'?"));
  EXPECT_TRUE(contains(s.refusal({"a", "--mem", "1G"}), "did you mean '--memory'?"));
  EXPECT_FALSE(contains(s.refusal({"a", "--completely-else"}), "did you mean"));
  EXPECT_TRUE(contains(s.refusal({"a", "-z"}), "unknown option '-z'"));
  EXPECT_TRUE(contains(s.refusal({"a", "--no-rank"}), "unknown option '--no-rank'"));
}

TEST(Options, BadValuesNameTheOptionAndWhatIsAllowed) {
  Sample s;
  EXPECT_TRUE(contains(s.refusal({"a", "--rank", "many"}), "--rank needs a number, got 'many'"));
  EXPECT_TRUE(contains(s.refusal({"a", "--rank", "8.5"}), "--rank needs a number"));
  EXPECT_TRUE(contains(s.refusal({"a", "--rank", "99999999999"}), "--rank must be from 1 to 4096"));
  EXPECT_TRUE(contains(s.refusal({"a", "--rank", "0"}), "--rank must be from 1 to 4096, got 0"));
  EXPECT_TRUE(contains(s.refusal({"a", "--lr", "-1"}), "--lr must be at least 0"));
  EXPECT_TRUE(contains(s.refusal({"a", "--lr", "nan"}), "--lr needs a number"));
  EXPECT_TRUE(contains(s.refusal({"a", "--method", "qlroa"}), "did you mean 'qlora'?"));
  EXPECT_TRUE(contains(s.refusal({"a", "--memory", "12X"}), "a size such as 24GiB"));
  EXPECT_TRUE(contains(s.refusal({"a", "--batch", "x"}), "a number or auto"));
  EXPECT_TRUE(contains(s.refusal({"a", "--packing=perhaps"}), "true or false"));
  EXPECT_TRUE(contains(s.refusal({"a", "--rank", "--lr", "1"}), "--rank needs a value"));
  EXPECT_TRUE(contains(s.refusal({"a", "--rank"}), "--rank needs a value"));
  EXPECT_TRUE(contains(s.refusal({"a", "b"}), "unexpected argument 'b'"));
  EXPECT_TRUE(
      contains(s.refusal({"a"}, {{"SUPERSONIC_RANK", "x"}}), "SUPERSONIC_RANK needs a number"));
}

TEST(Options, WhatIsRequiredMustBeGiven) {
  Sample s;
  s.parse({"--rank", "4"});
  EXPECT_THROW(s.options.check_required(), Error);
  Sample t;
  t.parse({}, {{"SUPERSONIC_MODEL", "a"}});
  EXPECT_NO_THROW(t.options.check_required());
}

TEST(Options, TheConfigRefusesWhatItDoesNotKnow) {
  const auto refusal = [](const std::string& text) {
    return Sample().refusal({"a", "-c", write_config(text).c_str()});
  };
  EXPECT_TRUE(
      contains(refusal("lr: 1\nrnk: 4\n"), ".yaml:2: unknown key 'rnk'; did you mean 'rank'?"));
  EXPECT_TRUE(contains(refusal("rank: [1, 2]\n"), "needs one plain value"));
  EXPECT_TRUE(contains(refusal("targets: {a: 1}\n"), "needs a list"));
  EXPECT_TRUE(contains(refusal("- rank\n"), "must be a map"));
  EXPECT_TRUE(contains(refusal("rank: 1\n  lr: [\n"), "not valid YAML"));
  EXPECT_TRUE(contains(refusal("rank: 0\n"), ".yaml:1: rank must be from 1 to 4096"));
  EXPECT_TRUE(
      contains(Sample().refusal({"a", "-c", "/nonexistent.yaml"}), "cannot open the config file"));
}

TEST(Options, TheResolvedConfigReproducesTheRun) {
  Sample s;
  s.parse({"a: b.gguf", "--rank", "8", "--stop", "x,\n\"y", "--no-packing", "--memory", "3G"},
          {{"SUPERSONIC_LR", "0.125"}});
  const std::string yaml = s.options.resolved_yaml();
  EXPECT_TRUE(contains(yaml, "rank: 8  # flag"));
  EXPECT_TRUE(contains(yaml, "lr: 0.125  # environment"));
  EXPECT_TRUE(contains(yaml, "batch: auto  # default"));
  Sample t;
  t.parse({"-c", write_config(yaml).c_str()});
  EXPECT_EQ(t.model, s.model);
  EXPECT_EQ(t.rank, 8);
  EXPECT_EQ(t.lr, 0.125);
  EXPECT_EQ(t.stop, s.stop);
  EXPECT_EQ(t.memory, s.memory);
  EXPECT_FALSE(t.packing);
  EXPECT_FALSE(t.batch.has_value());
}

TEST(Options, SizesAreInPowersOf1024) {
  const std::pair<const char*, std::uint64_t> sizes[] = {
      {"0", 0},          {"512", 512},        {"4k", 4096},
      {"1MiB", 1048576}, {"2gb", 2147483648}, {"0.5 GiB", 536870912}};
  for (const auto& [text, expected] : sizes) {
    Bytes b;
    ASSERT_TRUE(parse_value(text, b)) << text;
    EXPECT_EQ(b.count, expected) << text;
  }
  Bytes b;
  for (const char* text : {"", "G", "-1", "1e400", "5Q", "1KiBB", "99999999999T"})
    EXPECT_FALSE(parse_value(text, b)) << text;
}

TEST(Options, NearestFindsSwapsAndPrefixesButNotStrangers) {
  const std::vector<std::string> words = {"train", "run", "tokenize", "show"};
  EXPECT_EQ(nearest("trian", words), "train");
  EXPECT_EQ(nearest("tok", words), "tokenize");
  EXPECT_EQ(nearest("shwo", words), "show");
  EXPECT_EQ(nearest("xyzzy", words), "");
}

}  // namespace
}  // namespace supersonic::cli
