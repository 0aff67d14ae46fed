#include "ops/sample_step.h"

namespace supersonic {

void sample_step(const Tensor& step, const Tensor& seen, const Tensor& chosen, const Tensor& logits,
                 const Tensor& settings, std::int64_t window, Where where) {
  record(SampleStep{window}, {step, seen, chosen, logits, settings}, where);
}

void SampleStep::infer(Infer& i) {
  i.inputs(5);
  i.check(i.shape(0) == Shape{kStepFeeds} && i.spec(0).dtype == DType::i32, "step must be ({}) i32",
          kStepFeeds);
  i.check(i.shape(3).rank == 2 && i.shape(3)[0] == 1 && i.shape(3)[1] > 0 &&
              i.shape(3)[1] <= sampling::kMostTokens && i.spec(3).dtype == DType::f32,
          "logits must be (1, V) f32, V at most {}", sampling::kMostTokens);
  i.check(i.shape(1) == Shape{i.shape(3)[1]} && i.spec(1).dtype == DType::u8,
          "seen must be (V) u8");
  i.check(i.shape(2).rank == 1 && i.shape(2)[0] > 0 && i.spec(2).dtype == DType::i32,
          "chosen must be (N) i32");
  i.check(i.shape(4) == Shape{kSamplingWords} && i.spec(4).dtype == DType::i32,
          "settings must be ({}) i32", kSamplingWords);
}

}  // namespace supersonic
