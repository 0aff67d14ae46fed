// Ctrl-C as a process sees it: the first signal sets the flag, the second ends the process with
// 130.
#include "core/interrupt.h"

#include <gtest/gtest.h>

#include <csignal>
#include <cstdlib>

#include "core/error.h"

namespace supersonic {
namespace {

TEST(Interrupt, TheFirstSignalIsSeenBetweenSteps) {
  InterruptGuard guard("");
  EXPECT_NO_THROW(check_interrupt());
  std::raise(SIGINT);
  EXPECT_TRUE(interrupted());
  try {
    check_interrupt();
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::interrupted);
  }
  clear_interrupt();
  EXPECT_FALSE(interrupted());
}

TEST(InterruptDeathTest, TheSecondSignalEndsTheProcessAtOnce) {
  EXPECT_EXIT(
      {
        InterruptGuard guard("saving; again to stop now\n");
        std::raise(SIGINT);
        std::raise(SIGTERM);
      },
      testing::ExitedWithCode(130), "saving; again to stop now");
}

TEST(InterruptDeathTest, WithoutAGuardASignalEndsTheProcessAsUsual) {
  EXPECT_EXIT(
      {
        std::signal(SIGINT, SIG_DFL);  // whoever started the tests may ignore it
        { InterruptGuard guard(""); }
        std::raise(SIGINT);
      },
      testing::KilledBySignal(SIGINT), "");
}

TEST(InterruptDeathTest, ASignalAfterTheWorkWasCompleteEndsTheProcessWithItsCode) {
  EXPECT_EXIT(
      {
        { EXPECT_EQ(InterruptGuard("").complete(7), 7); }
        std::raise(SIGINT);
      },
      testing::ExitedWithCode(7), "");
}

}  // namespace
}  // namespace supersonic
