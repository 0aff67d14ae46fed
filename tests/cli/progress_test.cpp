// Progress lines as they reach a terminal or a log file, and that an update allocates nothing.
#include "cli/progress.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <malloc.h>
#include <cstdio>
#include <cstdlib>

namespace supersonic::cli {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

struct Pipe {
  int ends[2];
  Pipe() { EXPECT_EQ(pipe(ends), 0); }
  ~Pipe() { close(ends[0]), close(ends[1]); }
  std::string read_all() {
    char buffer[65536];
    EXPECT_EQ(write(ends[1], "$", 1), 1);
    const auto n = read(ends[0], buffer, sizeof buffer);
    return std::string(buffer, static_cast<std::size_t>(n) - 1);
  }
};

TEST(Progress, ALogGetsOneLineEveryTenSeconds) {
  Pipe p;
  Progress progress("train", "step", 100, 0, {.file = p.ends[1]});
  const auto begin = Progress::Clock::now();
  for (int i = 1; i <= 50; ++i)
    progress.update_at(begin + seconds(i), static_cast<std::uint64_t>(i), "loss 2.5");
  const std::string text = p.read_all();
  EXPECT_GE(std::count(text.begin(), text.end(), '\n'), 4);
  EXPECT_LE(std::count(text.begin(), text.end(), '\n'), 5);
  EXPECT_NE(text.find("20/100 step, 1.00 step/s, 1:20 left, loss 2.5\n"), std::string::npos)
      << text;
  EXPECT_EQ(text.find('\r'), std::string::npos);
}

TEST(Progress, ATerminalGetsOneLineThatIsRewrittenAndFits) {
  Pipe p;
  {
    Progress progress("load", "B", 1000, 0, {.file = p.ends[1], .terminal = true, .width = 60});
    const auto begin = Progress::Clock::now();
    for (int i = 1; i <= 100; ++i)
      progress.update_at(begin + milliseconds(10 * i), static_cast<std::uint64_t>(10 * i),
                         std::string(80, 'x'));
    progress.finish();
  }
  const std::string text = p.read_all();
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1);
  const auto updates = std::count(text.begin(), text.end(), '\r');
  EXPECT_GE(updates, 8);
  EXPECT_LE(updates, 12);
  for (std::size_t at = text.find('\r'), next; at != std::string::npos; at = next) {
    next = text.find('\r', at + 1);
    EXPECT_LE(std::min(next, text.size()) - at, 60u + 4);
  }
}

TEST(Progress, AResumedRunDoesNotCountEarlierWorkInItsRate) {
  Pipe p;
  Progress progress("train", "step", 0, 1000, {.file = p.ends[1]});
  progress.update_at(Progress::Clock::now() + seconds(10), 1020, "");
  EXPECT_NE(p.read_all().find("train 1020 step, 2.00 step/s"), std::string::npos);
}

TEST(Progress, UpdatesAllocateNothing) {
  Pipe p;
  Progress progress("train", "tok", 1 << 20, 0, {.file = p.ends[1]});
  const auto begin = Progress::Clock::now();
  progress.update_at(begin + seconds(20), 1, "x");
  const auto before = mallinfo2().uordblks;
  for (int i = 1; i <= 100; ++i)
    progress.update_at(begin + seconds(20 + 11 * i), static_cast<std::uint64_t>(i) * 1000,
                       "loss 2.512, lr 1.5e-4");
  EXPECT_EQ(mallinfo2().uordblks, before);
}

TEST(Progress, DurationsReadAsClocks) {
  const std::pair<double, const char*> cases[] = {
      {0.4, "0:00"}, {59.6, "1:00"}, {245, "4:05"}, {3723, "1:02:03"}};
  for (const auto& [seconds, text] : cases) {
    char out[16];
    EXPECT_EQ(std::string(out, format_duration(seconds, out)), text);
  }
}

}  // namespace
}  // namespace supersonic::cli
