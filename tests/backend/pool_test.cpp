// The thread pool: every part of a job runs once, ranges cover without overlap, jobs order memory. Run it under
// -fsanitize=thread as well: the counters below are deliberately plain.
#include "backend/cpu/pool.h"

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
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
      pool.together([&](int t) { ++runs[static_cast<std::size_t>(t)]; });
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

TEST(Pool, items_and_parts_run_once_and_what_they_wrote_is_read_after_the_job) {
  for (int threads : {1, 2, 5}) {
    Pool pool(threads);
    for (std::int64_t n : {0, 1, 3, 70000}) {
      std::vector<int> seen(static_cast<std::size_t>(n));
      pool.items(n, [&](std::int64_t i, int) { ++seen[static_cast<std::size_t>(i)]; });
      for (int s : seen) EXPECT_EQ(s, 1);
    }
    std::vector<std::int64_t> sums(8);
    for (int job = 0; job < 20000; ++job)
      pool.parts(static_cast<int>(sums.size()), [&](int part, int) { sums[static_cast<std::size_t>(part)] += job; });
    for (auto s : sums) EXPECT_EQ(s, std::int64_t{20000} * 19999 / 2);
  }
}

TEST(Pool, parts_that_run_at_the_same_time_have_different_threads) {
  constexpr int kThreads = 4;
  Pool pool(kThreads);
  std::array<std::atomic<bool>, kThreads> busy{};
  for (int job = 0; job < 500; ++job)
    pool.parts(16, [&](int, int thread) {
      ASSERT_TRUE(thread >= 0 && thread < kThreads);
      EXPECT_FALSE(busy[static_cast<std::size_t>(thread)].exchange(true));
      busy[static_cast<std::size_t>(thread)] = false;
    });
}

// A part that blocks keeps only itself from ending: the other thread takes all the rest.
TEST(Pool, a_thread_that_is_held_up_leaves_its_parts_to_the_others) {
  Pool pool(2);
  std::atomic<int> others{0};
  pool.parts(8, [&](int part, int) {
    if (part > 0) return void(++others);
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (others < 7 && std::chrono::steady_clock::now() < end) std::this_thread::yield();
    EXPECT_EQ(others, 7);
  });
}

// Jobs come about when the other thread gives up looking for one: none may be published unseen while it falls asleep.
// A job that was would hang, so another thread looks whether they go on.
TEST(Pool, a_thread_that_is_falling_asleep_gets_the_job) {
  using Clock = std::chrono::steady_clock;
  constexpr int kJobs = 40000;
  Pool pool(2);
  std::atomic<int> ran{0};
  std::thread watch([&] {
    constexpr int kPatience = 200;  // times 100 ms
    for (int before = -1, same = 0; ran < kJobs; std::this_thread::sleep_for(std::chrono::milliseconds(100))) {
      const int now = ran;
      same = now == before ? same + 1 : 0;
      before = now;
      if (same < kPatience) continue;
      std::fprintf(stderr, "job %d of the pool never ran on both threads\n", now);
      std::abort();
    }
  });
  while (ran < kJobs) {
    pool.together([](int) {});
    const auto until = Clock::now() + std::chrono::nanoseconds(38000 + ran % 512 * 20);
    while (Clock::now() < until) {
    }
    ++ran;
  }
  watch.join();
}

TEST(Pool, refuses_a_job_inside_a_job_and_no_threads) {
  Pool pool(1);
  pool.each_thread([&](int) { EXPECT_THROW(pool.each_thread([](int) {}), Error); });
  EXPECT_THROW(Pool(0), Error);
}

}  // namespace
}  // namespace supersonic::cpu
