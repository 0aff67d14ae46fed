// The stop matcher against a search over the whole text, for every way to cut the stream.
#include "infer/stop.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "core/rng.h"

namespace supersonic::infer {
namespace {

// The first position at which some stop string ends; of those that end there the longest is
// removed.
std::string expected(const std::string& text, const std::vector<std::string>& stops,
                     bool& stopped) {
  for (std::size_t end = 1; end <= text.size(); ++end) {
    std::size_t longest = 0;
    for (const auto& stop : stops)
      if (stop.size() <= end && text.compare(end - stop.size(), stop.size(), stop) == 0)
        longest = std::max(longest, stop.size());
    if (longest) return stopped = true, text.substr(0, end - longest);
  }
  return stopped = false, text;
}

TEST(Stop, EqualsASearchOverTheWholeTextHoweverItIsCut) {
  const std::vector<std::vector<std::string>> sets = {
      {"abab"}, {"aab", "b"}, {"abcd", "bc"}, {"aaa"}, {"cab", "abc", "bca"}, {}};
  Rng rng(1, 0, rng_site("stop"), 0);
  for (int round = 0; round < 3000; ++round) {
    const auto& stops = sets[rng.below(static_cast<std::uint32_t>(sets.size()))];
    std::string text;
    for (std::uint32_t i = 0, n = rng.below(30); i < n; ++i)
      text += static_cast<char>('a' + rng.below(4));
    StopMatcher matcher(stops);
    std::string shown;
    for (std::size_t i = 0; i < text.size();) {
      const std::size_t n = 1 + rng.below(5);
      shown += matcher.push(std::string_view(text).substr(i, n));
      i += n;
    }
    bool stopped = false;
    const std::string want = expected(text, stops, stopped);
    EXPECT_EQ(matcher.stopped(), stopped) << text;
    shown += matcher.flush();
    EXPECT_EQ(shown, want) << text;
  }
}

TEST(Stop, HoldsBackOnlyWhatMayStillBecomeAStopString) {
  StopMatcher matcher({"<|end|>", "\n\nUser:"});
  EXPECT_EQ(matcher.push("Hello <"), "Hello ");
  EXPECT_EQ(matcher.push("|e"), "");
  EXPECT_EQ(matcher.push("x"), "<|ex");
  EXPECT_EQ(matcher.push("\n"), "");
  EXPECT_EQ(matcher.push("\n\nUs"), "\n");
  EXPECT_EQ(matcher.flush(), "\n\nUs");
}

TEST(Stop, MatchesBytesInsideCharacters) {
  StopMatcher matcher({"\xe2\x96\x81\xc3\xa9"});
  EXPECT_EQ(matcher.push("a\xe2\x96"), "a");
  EXPECT_EQ(matcher.push("\x81\xc3"), "");
  EXPECT_EQ(matcher.push("\xa9 more"), "");
  EXPECT_TRUE(matcher.stopped());
  EXPECT_EQ(matcher.push("after"), "");
  EXPECT_EQ(matcher.flush(), "");
  matcher.reset();
  EXPECT_EQ(matcher.push("again"), "again");
}

TEST(Stop, RefusesAnEmptyString) { EXPECT_THROW(StopMatcher({"a", ""}), Error); }

}  // namespace
}  // namespace supersonic::infer
