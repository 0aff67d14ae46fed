// The loss log as a file that survives a kill and a resume, and the report that is drawn from it.
#include "train/report.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>

#include "core/error.h"
#include "train/loss_log.h"
#include "train/plot.h"

namespace supersonic::train {
namespace {

std::string temporary(const char* name) { return testing::TempDir() + "supersonic_" + name; }
std::string slurp(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}
StepRecord step(std::int64_t n) {
  return {.step = n,
          .epoch = 0.01 * static_cast<double>(n),
          .loss = 2.0 + 1.0 / static_cast<double>(n),
          .learning_rate = 2e-4,
          .grad_norm = 0.5,
          .tokens = n * 4096,
          .seconds = 1.5 * static_cast<double>(n)};
}

TEST(LossLog, EveryLineIsJsonWithTheRecordedValues) {
  const std::string path = temporary("log.jsonl");
  {
    LossLog log(path);
    log.write(step(1));
    log.write(EvalRecord{1, 2.75});
  }
  std::istringstream lines(slurp(path));
  std::string line;
  std::getline(lines, line);
  const auto first = nlohmann::json::parse(line);
  EXPECT_EQ(first["step"], 1);
  EXPECT_EQ(first["loss"], 3.0);
  EXPECT_EQ(first["lr"], 2e-4);
  EXPECT_EQ(first["tokens"], 4096);
  std::getline(lines, line);
  EXPECT_EQ(nlohmann::json::parse(line), nlohmann::json({{"step", 1}, {"eval_loss", 2.75}}));
}

TEST(LossLog, ResumingDropsTheStepsAfterTheCheckpoint) {
  const std::string straight = temporary("straight.jsonl"), resumed = temporary("resumed.jsonl");
  {
    LossLog log(straight);
    for (int i = 1; i <= 20; ++i) log.write(step(i));
  }
  {
    LossLog log(resumed);
    for (int i = 1; i <= 13; ++i) log.write(step(i));
  }
  std::ofstream(resumed, std::ios::app) << "{\"step\":14,\"epo";  // killed while writing
  {
    LossLog log(resumed, 10);
    for (int i = 11; i <= 20; ++i) log.write(step(i));
  }
  EXPECT_EQ(slurp(resumed), slurp(straight));
  EXPECT_EQ(read_loss_log(resumed).steps.size(), 20u);
}

TEST(LossLog, ANewRunStartsEmpty) {
  const std::string path = temporary("new.jsonl");
  std::ofstream(path) << "old\n";
  { LossLog log(path); }
  EXPECT_EQ(slurp(path), "");
}

TEST(LossLog, ADivergedLossIsNullAndReadBackAsNotANumber) {
  const std::string path = temporary("nan.jsonl");
  {
    LossLog log(path);
    StepRecord r = step(3);
    r.loss = std::numeric_limits<double>::quiet_NaN();
    log.write(r);
  }
  EXPECT_NE(slurp(path).find("\"loss\":null"), std::string::npos);
  EXPECT_TRUE(std::isnan(read_loss_log(path).steps.at(0).loss));
}

TEST(LossLog, ReadingNamesTheBadLine) {
  const std::string path = temporary("bad.jsonl");
  for (const char* bad :
       {"nonsense\n", "{}\n", "[1]\n", "{\"step\":\"1\"}\n", "{\"step\":1,\"loss\":\"x\"}\n"}) {
    std::ofstream(path) << "{\"step\":1,\"eval_loss\":2}\n" << bad;
    try {
      read_loss_log(path);
      FAIL() << bad;
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::bad_file);
      EXPECT_NE(std::string(e.what()).find("bad.jsonl:2:"), std::string::npos) << e.what();
    }
  }
  EXPECT_THROW(LossLog("/nonexistent/log.jsonl"), Error);
}

TEST(Plot, TicksAreRoundAndCoverTheRange) {
  const std::pair<double, double> ranges[] = {
      {0, 1}, {2.31, 4.16}, {-3, 17}, {0, 2e-4}, {1e6, 1.5e6}};
  for (const auto& [low, high] : ranges) {
    const auto t = ticks(low, high, 5);
    ASSERT_GE(t.size(), 3u);
    ASSERT_LE(t.size(), 12u);
    EXPECT_LE(t.front(), low);
    EXPECT_GE(t.back(), high * (1 - 1e-12));
  }
}

TEST(Plot, SmoothingKeepsAConstantAndPassesOverGaps) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (double v : smoothed({3, 3, nan, 3}, 10)) EXPECT_DOUBLE_EQ(v, 3);
  EXPECT_TRUE(std::isnan(smoothed({nan, 1}, 10)[0]));
  EXPECT_DOUBLE_EQ(smoothed({1, 2, 3}, 1)[2], 3);
}

TEST(Report, EscapesEverythingThatCameFromOutside) {
  Report report{.title = "<script>alert(1)</script>",
                .subtitle = "a & b",
                .figures = {{"x\"", "<b>"}},
                .settings = {{"k", "'v'"}},
                .samples = {{"<img src=x>", {{"before", "</pre>"}}}}};
  const std::string page = render_report(report, {});
  for (const char* raw : {"<script", "a & b", "<img", "</pre></pre>", "<b><b>", "'v'"})
    EXPECT_EQ(page.find(raw), std::string::npos) << raw;
  EXPECT_NE(page.find("&lt;script&gt;"), std::string::npos);
}

TEST(Report, AsksForNothingFromOutside) {
  LossCurve curve;
  for (int i = 1; i <= 100; ++i) curve.steps.push_back(step(i));
  curve.evals = {{0, 3.2}, {100, 2.2}};
  const std::string page = render_report(
      {.title = "t", .subtitle = "", .figures = {}, .settings = {}, .samples = {}}, curve);
  for (const char* outside :
       {"http:", "https:", "//", "src=", "href=", "url(", "@import", "nan", "inf"})
    EXPECT_EQ(page.find(outside), std::string::npos) << outside;
}

TEST(Report, LongAndBrokenCurvesStaySmallAndWhole) {
  LossCurve curve;
  for (int i = 1; i <= 200000; ++i) curve.steps.push_back(step(i));
  curve.steps[777].loss = std::numeric_limits<double>::infinity();
  curve.steps[5000].grad_norm = 100;
  const std::string path = temporary("report.html");
  write_report(path, {.title = "t", .subtitle = "", .figures = {}, .settings = {}, .samples = {}},
               curve);
  const std::string page = slurp(path);
  EXPECT_LT(page.size(), 300000u);
  EXPECT_TRUE(page.ends_with("</html>\n"));
  EXPECT_THROW(write_report("/nonexistent/report.html", {}, curve), Error);
}

}  // namespace
}  // namespace supersonic::train
