// The handler touches lock-free atomics, write(2) and _exit(2) alone: all else is unsafe in a
// signal.
#include "core/interrupt.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>

#include "core/error.h"

namespace supersonic {
namespace {

std::atomic<bool> flag{false};
std::atomic<const char*> notice_text{nullptr};
struct sigaction previous_int, previous_term;
static_assert(std::atomic<bool>::is_always_lock_free &&
                  std::atomic<const char*>::is_always_lock_free,
              "the handler may only touch lock-free state");

void on_signal(int) {
  if (flag.exchange(true)) _exit(static_cast<int>(ErrorKind::interrupted));
  const int saved = errno;
  if (const char* text = notice_text.load()) [[maybe_unused]]
    const auto n = write(STDERR_FILENO, text, std::strlen(text));
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
  sigaction(SIGINT, &action, &previous_int);
  sigaction(SIGTERM, &action, &previous_term);
}

InterruptGuard::~InterruptGuard() {
  sigaction(SIGINT, &previous_int, nullptr);
  sigaction(SIGTERM, &previous_term, nullptr);
  notice_text = nullptr;
}

}  // namespace supersonic
