// Counts allocations of the whole process (malloc, new, mmap) in the steady state: training steps from the third on, and decoded
// tokens once their bucket is warm. Also compares the peak memory with what was planned before the run.
//   allocation_probe MODEL [ROWS LENGTH [full]]   prints one JSON object; full: all weights are trained, else an adapter
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "cli/progress.h"
#include "core/machine.h"
#include "core/rng.h"
#include "infer/session.h"
#include "text/dataset_pack.h"
#include "train/trainer.h"
#include "train/loss_log.h"

namespace {
std::atomic<long> allocations{0};
}

// The program's own definitions come before the C library's, for its shared libraries as well.
extern "C" {
void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* __libc_memalign(size_t, size_t);
void* malloc(size_t n) { return allocations.fetch_add(1), __libc_malloc(n); }
void* calloc(size_t n, size_t m) { return allocations.fetch_add(1), __libc_calloc(n, m); }
void* realloc(void* p, size_t n) { return allocations.fetch_add(1), __libc_realloc(p, n); }
void* aligned_alloc(size_t a, size_t n) { return allocations.fetch_add(1), __libc_memalign(a, n); }
int posix_memalign(void** p, size_t a, size_t n) { return allocations.fetch_add(1), *p = __libc_memalign(a, n), *p ? 0 : 12; }
void* mmap(void* at, size_t n, int protection, int flags, int file, off_t offset) noexcept {
  allocations.fetch_add(1);
  return reinterpret_cast<void*>(syscall(SYS_mmap, at, n, protection, flags, file, offset));
}
}

using namespace supersonic;

namespace {

text::Batch random_batch(std::int64_t rows, std::int64_t length, std::int64_t vocabulary) {
  text::Batch b;
  Rng rng(1, 0, rng_site("allocation probe"), 0);
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t i = 0; i < length; ++i) {
      b.ids.push_back(static_cast<std::int32_t>(rng.below(static_cast<std::uint32_t>(vocabulary))));
      b.labels.push_back(static_cast<std::int32_t>(rng.below(static_cast<std::uint32_t>(vocabulary))));
      b.positions.push_back(static_cast<std::int32_t>(i));
      b.lo.push_back(static_cast<std::int32_t>(r * length));
    }
  }
  b.trained = b.tokens = rows * length;
  return b;
}

long count_training(const models::Model& m, const train::Parameters& parameters, Executor& executor, std::int64_t rows, std::int64_t length,
                    std::size_t& planned) {
  train::Trainer trainer(m, parameters, executor, rows * length, Compute::bf16, {});
  planned = trainer.memory().total() - trainer.memory().saving;
  const text::Batch b = random_batch(rows, length, m.config.vocab_size);
  char path[] = "/tmp/allocation_probe_XXXXXX";
  close(mkstemp(path));
  train::LossLog log(path);
  unlink(path);
  cli::Progress progress("steps", "step", 5);
  long before = 0;
  for (int step = 1; step <= 5; ++step) {
    if (step == 3) before = allocations.load();
    train::StepRecord r;
    r.step = step;
    r.loss = trainer.accumulate(b, 1.0f / static_cast<float>(b.trained));
    r.grad_norm = trainer.step(step, 1e-4f);
    log.write(r);
    progress.update(static_cast<std::uint64_t>(step), "training");
  }
  return allocations.load() - before;
}

long count_decoding(const models::Model& m, Executor& executor) {
  infer::Session session(m, executor, {});
  const std::int32_t prompt[] = {1, 2, 3, 4, 5};
  session.feed(prompt);
  session.feed(std::span(prompt, 1));
  const long before = allocations.load();
  for (int i = 0; i < 8; ++i) session.feed(std::span(prompt, 1));
  return allocations.load() - before;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2 || argc > 5 || argc == 3) return std::fprintf(stderr, "usage: allocation_probe MODEL [ROWS LENGTH [full]]\n"), 2;
  const std::int64_t rows = argc >= 4 ? std::atoll(argv[2]) : 2, length = argc >= 4 ? std::atoll(argv[3]) : 128;
  const bool full = argc == 5 && argv[4] == std::string_view("full");
  Executor executor(cpu_backend());
  const std::size_t bare = peak_resident_bytes();
  models::Model m = models::load_model(argv[1]);
  nn::LoraSet lora;
  if (!full) lora = train::make_lora(m, {}, true);
  train::Parameters parameters = full ? train::plan_weights(m) : train::Parameters(lora);
  if (full) train::take_weights(m, parameters);
  std::size_t planned = 0;
  const long training = count_training(m, parameters, executor, rows, length, planned);
  const std::size_t peak = peak_resident_bytes();
  const long decoding = count_decoding(m, executor);
  std::printf("{\"training_allocations\": %ld, \"decoding_allocations\": %ld, \"bare_bytes\": %zu, \"planned_bytes\": %zu, \"peak_bytes\": %zu}\n",
              training, decoding, bare, planned, peak);
}
