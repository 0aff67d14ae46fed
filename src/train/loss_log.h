// The loss curve as JSON lines, one per optimizer step or evaluation, in the order in which they
// happened:
//   {"step":12,"epoch":0.31,"loss":2.5133,"lr":1.8e-04,"grad_norm":0.91,"tokens":24576,"seconds":60.2}
//   {"step":12,"eval_loss":2.61}
// A line is written by one write(2) from a fixed buffer: no allocation in a step, and a killed run
// leaves whole lines. When a run resumes from a checkpoint, lines after the checkpoint's step are
// dropped, so that no step appears twice, and so is what a crash of the machine left after them.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace supersonic::train {

struct StepRecord {
  std::int64_t step = 0;  // optimizer steps done, the first is 1
  double epoch = 0;       // passes over the data, fractional
  double loss = 0;        // mean over the trained tokens of the step, nats
  double learning_rate = 0;
  double grad_norm = 0;     // before clipping
  std::int64_t tokens = 0;  // trained or not, since the start of training
  double seconds = 0;       // since the start of training, earlier runs included
};

struct EvalRecord {
  std::int64_t step = 0;
  double loss = 0;  // mean over the held-out trained tokens, nats
};

struct LossCurve {
  std::vector<StepRecord> steps;
  std::vector<EvalRecord> evals;
};

class LossLog {
 public:
  // Creates the file, or continues it after `resume_step` (0: from nothing). Throws Error(failure)
  // when it cannot.
  explicit LossLog(const std::string& path, std::int64_t resume_step = 0);
  ~LossLog();
  LossLog(const LossLog&) = delete;

  void write(const StepRecord& record);
  void write(const EvalRecord& record);
  void sync();  // what was written is on the disk when this returns

 private:
  void put(const char* line, std::size_t size);
  std::string path_;
  int file_ = -1;
};

// Reads a log back. Throws Error(bad_file) with the line number of what is no record; an incomplete
// last line is left out.
LossCurve read_loss_log(const std::string& path);

}  // namespace supersonic::train
