// Training of one model: the captured programs of a micro-batch (forward, backward, gradients added up), of an evaluation
// and of an optimizer step, and the state that they work on. What is trained is an adapter, or all weights (train/parameters.h); what is trained on, for how long and with which rates is the
// caller's (train/run.h). After the first micro-batch and step nothing is allocated.
#pragma once
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "core/executor.h"
#include "models/decoder.h"
#include "train/parameters.h"

namespace supersonic::text {
struct Batch;
}

namespace supersonic::train {

struct OptimizerOptions {
  bool eight_bit = false;  // block-wise 8-bit moments
  float beta1 = 0.9f, beta2 = 0.999f, eps = 1e-8f, weight_decay = 0.01f;
  float max_grad_norm = 1.0f;  // 0: no clipping
  std::uint64_t seed = 0;      // of the rounding of parameters in bf16
};

// Bytes of a training set-up, known before it runs.
struct TrainMemory {
  std::size_t weights = 0;     // that are frozen
  std::size_t parameters = 0, gradients = 0, moments = 0, feeds = 0;
  std::size_t saving = 0;      // the copy of an adapter that is written to a file
  std::size_t arena = 0;       // activations and workspaces: the plan's peak
  std::size_t outside = 0;     // in page-locked host memory beside a device: weights and activations; not part of the total
  std::string level;           // what the plan keeps and recomputes
  std::size_t total() const { return weights + parameters + gradients + moments + feeds + saving + arena; }
};

// A group where kernels read and write it.
struct PlacedGroup {
  StorageRef values, gradients;
  std::vector<StorageRef> moments;
  bool decay = true;
};

// What a micro-batch reads, in host memory.
struct Feeds {
  explicit Feeds(std::int64_t tokens);
  StorageRef ids, positions, lo, hi, window_lo, labels, scale;
  models::Inputs inputs() const;  // on the tape
  std::size_t bytes() const;
};

// Where the weights should lie so that training meets policy.budget (of everything in TrainMemory::total()): all of them on the device
// where nothing need be recomputed then, in half of what is left as bf16; else without the table of embeddings; else without as few layers as will do. What is trained stays there.
models::Residence choose_residence(const models::Model& model, const Parameters& parameters, Backend& backend, std::int64_t tokens, Compute compute,
                                   const OptimizerOptions& optimizer, Policy policy);

// What such a run would take, from its plans; nothing is moved or allocated. Throws Error(memory) as the trainer would.
TrainMemory planned_memory(const models::Model& model, const Parameters& parameters, Backend& backend, std::int64_t tokens, Compute compute,
                           const OptimizerOptions& optimizer, Policy policy);

class Trainer {
 public:
  // parameters: an adapter's, or all weights of the model (take_weights). tokens: of a micro-batch. policy: of the micro-batch's plan;
  // its arithmetic is `compute`, and its budget here is that of everything in memory().total(). Throws Error(memory) when no plan fits.
  Trainer(const models::Model& model, const Parameters& parameters, Executor& executor, std::int64_t tokens, Compute compute,
          const OptimizerOptions& optimizer, Policy policy = {});

  // Forward and backward; the gradients of scale * Σ nll are added to those of earlier calls. Returns scale * Σ nll.
  double accumulate(const text::Batch& batch, float scale);
  // One AdamW step with the gathered gradients, which are cleared. step counts from 1. Returns the gradient norm before clipping.
  double step(std::int64_t step, float learning_rate);
  // Σ nll of a batch, nothing learned.
  double evaluate(const text::Batch& batch);

  TrainMemory memory() const;
  const Plan& plan() const { return train_.plan(); }
  // The caller's arrays, whose values bring_home() brings to host memory where kernels work elsewhere.
  const Parameters& parameters() const { return parameters_; }
  void bring_home() const;
  // The gathered gradients of a group, where kernels work.
  const Storage& gradients(std::size_t group) const { return *here_[group].gradients; }
  // What a checkpoint holds, by name, in host memory: parameters and moments. Who writes into it calls state_written().
  std::vector<std::pair<std::string, StorageRef>> state() const;
  void state_written();

 private:
  // A storage that kernels write, and its contents in host memory; on the CPU one and the same.
  struct Mirror {
    std::string name;
    StorageRef host, here;
  };
  void place_parameters();
  void add_moments(std::size_t group);
  TrainMemory fixed_memory() const;  // without the plans
  void fill_feeds(const text::Batch& batch, float scale);
  void bring_home(const Mirror& m) const;

  models::Model model_;  // whose weights, where they are trained, lie in here_
  Parameters parameters_;
  nn::LoraSet lora_;  // where kernels read and write it
  std::vector<PlacedGroup> here_;
  Executor& executor_;
  std::int64_t tokens_;
  OptimizerOptions optimizer_;
  Feeds feeds_;
  StorageRef hyper_;
  std::vector<Mirror> state_;  // of each group the parameters, then the moments
  Program train_, update_;
  std::optional<Program> evaluate_;
  Compute compute_;
};

}  // namespace supersonic::train
