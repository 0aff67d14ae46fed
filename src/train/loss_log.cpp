// Lines are formatted into a fixed buffer; reading accepts exactly what is written here, plus keys
// that are unknown.
#include "train/loss_log.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>

#include "core/error.h"
#include "core/format_into.h"
#include "io/json.h"
#include "io/output_file.h"

namespace supersonic::train {
namespace {

// JSON has no NaN: a diverged step is logged as null.
struct Line {
  char data[512];
  std::size_t size = 0;
  template <class... Args>
  void add(fmt::format_string<Args...> format, Args&&... args) {
    size += format_into(data + size, sizeof data - size, format, std::forward<Args>(args)...);
  }
  void field(const char* name, double value, int digits) {
    if (std::isfinite(value)) {
      add(",\"{}\":{:.{}g}", name, value, digits);
    } else {
      add(",\"{}\":null", name);
    }
  }
};

double number(io::JsonView object, const char* name) {
  const io::JsonView found = object.find(name);
  if (!found) return 0;
  return found.number().value_or(std::numeric_limits<double>::quiet_NaN());
}

// Calls use(object, step, end of line offset) for each complete line.
// `damaged_ends`: a line that is no record ends the file, instead of being an error.
template <class Use>
void each_line(const std::string& path, bool damaged_ends, Use&& use) {
  std::ifstream in(path, std::ios::binary);
  CHECK_FILE(in, "{}: cannot open: {}", path, std::strerror(errno));
  std::string line;
  std::int64_t offset = 0;
  for (int n = 1; std::getline(in, line); ++n) {
    if (in.eof()) return;  // no line end: the run was killed while writing
    offset += static_cast<std::int64_t>(line.size()) + 1;
    const io::JsonDocument record = io::JsonDocument::attempt(line);
    const io::JsonView object = record.root(), step = object.find("step");
    if (damaged_ends && !object) return;
    CHECK_FILE(step.is_integer() && step.integer(),
               "{}:{}: not a loss record (no whole number 'step')", path, n);
    for (const auto& [key, value] : object.members())
      CHECK_FILE(value.is_number() || value.is_null(), "{}:{}: '{}' is not a number", path, n, key);
    if (!use(object, *step.integer(), offset)) return;
  }
}

std::int64_t bytes_up_to_step(const std::string& path, std::int64_t step) {
  std::int64_t end = 0;
  each_line(path, true, [&](io::JsonView, std::int64_t at, std::int64_t offset) {
    if (at > step) return false;
    return end = offset, true;
  });
  return end;
}

}  // namespace

LossLog::LossLog(const std::string& path, std::int64_t resume_step) : path_(path) {
  const bool keep = resume_step > 0 && access(path.c_str(), F_OK) == 0;
  const std::int64_t size = keep ? bytes_up_to_step(path, resume_step) : 0;
  file_ = open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  const bool ready = file_ >= 0 && ftruncate(file_, size) == 0;
  const int error = errno;
  if (!ready && file_ >= 0) close(file_);
  CHECK(ready, "{}: cannot write the loss log: {}", path, std::strerror(error));
}

LossLog::~LossLog() { close(file_); }

void LossLog::put(const char* line, std::size_t size) {
  while (size > 0) {
    const ssize_t n = ::write(file_, line, size);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0)
      io::fail_write(path_, errno, "; the same command continues from the newest checkpoint");
    line += n, size -= static_cast<std::size_t>(n);
  }
}

void LossLog::sync() {
  if (fdatasync(file_) != 0 && errno != EINVAL) io::fail_write(path_, errno);
}

void LossLog::write(const StepRecord& r) {
  Line line;
  line.add("{{\"step\":{}", r.step);
  line.field("epoch", r.epoch, 6);
  line.field("loss", r.loss, 9);
  line.field("lr", r.learning_rate, 6);
  line.field("grad_norm", r.grad_norm, 6);
  line.add(",\"tokens\":{}", r.tokens);
  line.field("seconds", r.seconds, 9);
  line.add("}}\n");
  put(line.data, line.size);
}

void LossLog::write(const EvalRecord& r) {
  Line line;
  line.add("{{\"step\":{}", r.step);
  line.field("eval_loss", r.loss, 9);
  line.add("}}\n");
  put(line.data, line.size);
}

LossCurve read_loss_log(const std::string& path) {
  LossCurve curve;
  each_line(path, false, [&](io::JsonView object, std::int64_t step, std::int64_t) {
    if (object.contains("eval_loss")) {
      curve.evals.push_back({step, number(object, "eval_loss")});
    } else {
      curve.steps.push_back({step, number(object, "epoch"), number(object, "loss"),
                             number(object, "lr"), number(object, "grad_norm"),
                             static_cast<std::int64_t>(number(object, "tokens")),
                             number(object, "seconds")});
    }
    return true;
  });
  return curve;
}

}  // namespace supersonic::train
