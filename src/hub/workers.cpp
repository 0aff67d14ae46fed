// Threads take the next task from a counter; this thread speaks for all of them.
#include "hub/workers.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "core/error.h"

namespace supersonic::hub {
namespace {

struct Shared {
  std::atomic<std::size_t> next{0};
  std::atomic<int> running{0};
  std::atomic<bool> failed{false};
  std::mutex mutex;
  std::exception_ptr error;
  std::vector<std::string> said;

  void fail_with(std::exception_ptr e) {
    const std::lock_guard lock(mutex);
    if (!failed.exchange(true)) error = std::move(e);
  }
  std::vector<std::string> take_said() {
    const std::lock_guard lock(mutex);
    return std::exchange(said, {});
  }
};

void work(const Settings& settings, const Watch& watch, Shared& shared, std::size_t count,
          const std::function<void(Client&, std::size_t)>& task) {
  try {
    Client client(settings, watch);
    for (std::size_t i; !shared.failed && (i = shared.next++) < count;) task(client, i);
  } catch (...) {
    shared.fail_with(std::current_exception());
  }
  --shared.running;
}

}  // namespace

void run_workers(const Settings& settings, const Watch& watch, std::size_t count, int jobs,
                 const std::function<void(Client&, std::size_t)>& task,
                 const std::function<void()>& poll) {
  Shared shared;
  const Watch inner{.say =
                        [&](const std::string& text) {
                          const std::lock_guard lock(shared.mutex);
                          shared.said.push_back(text);
                        },
                    .keep_going = [&] { return !shared.failed && watch.goes_on(); }};
  const auto threads = std::min<std::size_t>(count, static_cast<std::size_t>(std::max(jobs, 1)));
  shared.running = static_cast<int>(threads);
  std::vector<std::thread> pool;
  for (std::size_t t = 0; t < threads; ++t)
    pool.emplace_back([&] { work(settings, inner, shared, count, task); });
  const auto speak = [&] {
    for (const std::string& text : shared.take_said())
      if (watch.say) watch.say(text);
    if (poll) poll();
  };
  while (shared.running > 0) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    speak();
  }
  for (std::thread& t : pool) t.join();
  speak();
  if (shared.error) std::rethrow_exception(shared.error);
}

}  // namespace supersonic::hub
