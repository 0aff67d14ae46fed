// The thread pool: every thread runs each job once, ranges cover without overlap, barriers order memory. Run it under
// -fsanitize=thread as well: the counters below are deliberately plain.
#include "backend/cpu/pool.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>
#include <vector>

#include "core/error.h"

namespace supersonic::cpu {
namespace {

TEST(Pool, runs_each_job_once_on_every_thread) {
  for (int threads : {1, 2, 5}) {
    Pool pool(threads);
    std::vector<int> runs(static_cast<std::size_t>(threads));
    for (int job = 0; job < 2000; ++job) {
      pool.each_thread([&](int t) { ++runs[static_cast<std::size_t>(t)]; });
      if (job % 500 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));  // let them fall asleep
    }
    for (int r : runs) EXPECT_EQ(r, 2000);
  }
}

TEST(Pool, ranges_cover_everything_once_in_multiples_of_the_grain) {
  for (int threads : {1, 2, 3, 7})
    for (std::int64_t n : {0, 1, 5, 64, 65, 1000}) {
      Pool pool(threads);
      std::vector<int> seen(static_cast<std::size_t>(n));
      pool.ranges(n, 16, [&](std::int64_t begin, std::int64_t end, int) {
        EXPECT_EQ(begin % 16, 0);
        for (std::int64_t i = begin; i < end; ++i) ++seen[static_cast<std::size_t>(i)];
      });
      for (int s : seen) EXPECT_EQ(s, 1);
    }
}

TEST(Pool, what_was_written_before_a_barrier_is_read_after_it) {
  constexpr int kThreads = 3;
  Pool pool(kThreads);
  int slots[kThreads] = {};
  pool.each_thread([&](int t) {
    for (int round = 1; round <= 500; ++round) {
      slots[t] = round;
      pool.barrier();
      EXPECT_EQ(slots[(t + 1) % kThreads], round);
      pool.barrier();
    }
  });
}

TEST(Pool, refuses_a_job_inside_a_job_and_no_threads) {
  Pool pool(1);
  pool.each_thread([&](int) { EXPECT_THROW(pool.each_thread([](int) {}), Error); });
  EXPECT_THROW(Pool(0), Error);
}

}  // namespace
}  // namespace supersonic::cpu
