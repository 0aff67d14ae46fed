// The handler touches lock-free atomics, write(2) and _exit(2) alone: all else is unsafe in a
// signal.
#include "core/interrupt.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <iterator>

#include "core/error.h"

namespace supersonic {
namespace {

std::atomic<bool> flag{false};
std::atomic<const char*> notice_text{nullptr};
constexpr int kRunning = -1;
std::atomic<int> exit_code{kRunning};  // of work that is complete
constexpr int kSignals[] = {SIGINT, SIGTERM, SIGHUP};
struct sigaction previous[std::size(kSignals)];
static_assert(std::atomic<bool>::is_always_lock_free && std::atomic<int>::is_always_lock_free &&
                  std::atomic<const char*>::is_always_lock_free,
              "the handler may only touch lock-free state");

void say(const char* text) {
  [[maybe_unused]] const auto n = write(STDERR_FILENO, text, std::strlen(text));
}

void on_signal(int) {
  if (const int code = exit_code.load(); code != kRunning) _exit(code);
  const int saved = errno;
  const char* text = notice_text.load();
  if (flag.exchange(true)) {
    if (text && *text) say("stopped at once\n");
    _exit(static_cast<int>(ErrorKind::interrupted));
  }
  if (text) say(text);
  errno = saved;
}

}  // namespace

bool interrupted() noexcept { return flag.load(std::memory_order_relaxed); }
void request_interrupt() noexcept { flag = true; }
void clear_interrupt() noexcept { flag = false; }
void check_interrupt() {
  if (interrupted()) fail(ErrorKind::interrupted, "interrupted");
}

InterruptGuard::InterruptGuard(const char* notice) {
  notice_text = notice;
  struct sigaction action {};
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;
  for (std::size_t i = 0; i < std::size(kSignals); ++i) {
    sigaction(kSignals[i], &action, &previous[i]);
    // nohup: the process was told to outlive its terminal.
    if (kSignals[i] == SIGHUP && previous[i].sa_handler == SIG_IGN)
      sigaction(SIGHUP, &previous[i], nullptr);
  }
}

int InterruptGuard::complete(int code) const noexcept {
  exit_code = code;
  return code;
}

InterruptGuard::~InterruptGuard() {
  if (exit_code.load() != kRunning) return;
  for (std::size_t i = 0; i < std::size(kSignals); ++i)
    sigaction(kSignals[i], &previous[i], nullptr);
  notice_text = nullptr;
}

}  // namespace supersonic
