// Session: a model with its KV cache, fed token by token or in chunks. Each step is a captured program for one pair of buckets
// (tokens, context), made once and replayed: feeding a token allocates nothing once its bucket is warm.
//
// Text comes out of a loop in which nothing passes through the host: a step over one token ends by choosing the next one, and leaves it
// where the step after it reads it (ops/sample_step.h). On a device of its own the host starts a step before it knows what the last one
// chose. The step that this puts behind the text's end is of no consequence: its row of the cache lies behind position().
#pragma once
#include <array>
#include <map>
#include <memory>
#include <tuple>
#include <span>
#include <vector>

#include "core/executor.h"
#include "models/decoder.h"
#include "ops/sampling.h"

namespace supersonic::infer {

struct SessionOptions {
  Compute compute = Compute::int8;
  std::int64_t context = 0;          // capacity in tokens; 0: the model's own, at most 4,096
  std::int64_t chunk = 0;            // most tokens of one step; 0: what suits the backend
  models::TensorType kv_type{DType::bf16};  // f32, bf16, f16, or one of cache_formats()
  const nn::LoraSet* lora = nullptr;
};

// What automatic choice of arithmetic means for a model: int8 where its matrices are quantized, bf16 where they are 16-bit and
// the machine multiplies bf16, fp32 otherwise.
Compute auto_compute(const models::Model& model);

// Memory of a session beside the weights, in bytes, known before anything runs.
struct SessionMemory {
  std::size_t cache = 0;  // keys and values
  std::size_t arena = 0;  // the largest step's intermediate values: the plan's peak
};
SessionMemory plan_session(const models::Model& model, Backend& backend, const SessionOptions& options);

// What sampling inside of steps keeps, where kernels read and write it.
struct SampleFeeds {
  StorageRef step, seen, settings;     // as ops/sample_step.h has them
  StorageRef chosen, chosen_on_host;   // the last tokens; the same memory as the host reads it
};

// What varies from step to step, in one storage, so that it goes to a GPU at once: ids, positions, lo, hi and window_lo of each
// token, then the cache's row of the first one, and which is the last one.
struct StepFeeds {
  std::int64_t tokens = 0;
  StorageRef numbers;  // (5 tokens + 2) i32
};

class Session {
 public:
  Session(const models::Model& model, Executor& executor, const SessionOptions& options);
  ~Session();
  // Appends tokens to the context and returns the logits (vocab) that follow the last one, valid until the next call.
  // Throws Error(usage) when the context would overflow, naming both numbers; nothing was appended then.
  std::span<const float> feed(std::span<const std::int32_t> ids);
  // Makes `token` the next one that next() feeds, and chooses those after it as `settings` say: the same as a Sampler would by the
  // logits of feed(). seen: a byte for each token, read where the settings have a penalty. At most `most` calls of next() follow.
  void start(std::int32_t token, const Sampling& settings, std::span<const std::uint8_t> seen, std::int64_t most);
  // Feeds a token and returns the one that follows it, which the next call feeds. Throws as feed() does.
  std::int32_t next();
  // Ends the loop; feed() and rewind() do so, too. Waits for a step that is still on its way.
  void stop();
  std::int64_t position() const { return position_; }
  std::int64_t capacity() const { return cache_.capacity; }
  void rewind(std::int64_t position);  // forgets the tokens from `position` on
  std::size_t cache_bytes() const;

 private:
  struct Step {
    StepFeeds feeds;
    Program program;
  };
  enum class Ends { nowhere, in_logits, in_token };
  Step& step_for(std::int64_t tokens, std::int64_t context, Ends ends);
  std::int64_t context_for(std::int64_t rows) const;
  void check_room(std::int64_t tokens) const;
  bool start_step(std::int64_t row);

  const models::Model& model_;
  Executor& executor_;
  SessionOptions options_;
  std::unique_ptr<nn::LoraSet> lora_;  // the options' set where kernels read it
  models::KvCache cache_;
  std::map<std::tuple<std::int64_t, std::int64_t, Ends>, std::unique_ptr<Step>> steps_;
  std::int64_t position_ = 0;
  SampleFeeds sample_;                            // made by the first start()
  std::array<std::unique_ptr<Fence>, 2> fences_;  // of the step at a row: one of these by turns
  std::int64_t left_ = 0, started_ = 0;           // calls of next() to come; rows of steps that were started
};

}  // namespace supersonic::infer
