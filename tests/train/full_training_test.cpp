// Full fine-tuning on the device under test against the CPU in fp32: a small Llama, all weights,
// fp32 and bf16 ones, an untied and a tied head, biases; and that steps repeat bit for bit from a
// state that went to host memory and back.
#include <gtest/gtest.h>

#include "../core/tiny_model.h"
#include "../infer/random_model.h"
#include "text/dataset_pack.h"
#include "train/trainer.h"

namespace supersonic::testing {
namespace {

struct Kind {
  bool tied = false, narrow = false, eight_bit = false;
  Compute compute = Compute::fp32;
};

models::Model model_of(const Kind& kind) {
  models::Model m = random_model(0, 64, 4);
  if (kind.tied) m.head = m.embedding;
  for (models::Layer& l : m.layers)
    l.q.bias = random_storage(l.q.name + ".bias", Shape{l.q.weight->spec.shape[0]}, 0.1f);
  if (!kind.narrow) return m;
  const auto narrow = [](StorageRef& s) {
    StorageRef to = Storage::make({s->spec.shape, DType::bf16, nullptr}, s->name);
    for (std::int64_t i = 0; i < s->spec.numel(); ++i) to->as<bf16>()[i] = bf16(s->as<float>()[i]);
    s = to;
  };
  for (nn::Linear* l : m.linears()) narrow(l->weight);
  const bool tied = m.head == m.embedding;
  narrow(m.embedding);
  if (tied)
    m.head = m.embedding;
  else
    narrow(m.head);
  return m;
}

text::Batch batch_of(std::int64_t tokens, std::int64_t vocabulary) {
  text::Batch b;
  b.ids = random_ids(static_cast<std::size_t>(tokens), vocabulary);
  for (std::int32_t i = 0; i < tokens; ++i) {
    b.labels.push_back(i % 6 ? b.ids[static_cast<std::size_t>(i + 1) % tokens] : text::kIgnore);
    b.positions.push_back(i % 50);
    b.lo.push_back(i / 50 * 50);
    b.trained += i % 6 != 0;
  }
  return b;
}

struct Trained {
  std::vector<double> losses, norms, values, again;
};

// Five steps; then the state after three is put back, and two are done again.
Trained train_all(Backend& backend, const Kind& kind) {
  models::Model model = model_of(kind);
  train::Parameters parameters = train::plan_weights(model);
  train::take_weights(model, parameters);
  Executor executor(backend);
  train::OptimizerOptions options;
  options.eight_bit = kind.eight_bit;
  options.seed = 9;
  const text::Batch batch = batch_of(300, model.config.vocab_size);
  train::Trainer trainer(model, parameters, executor, 300, kind.compute, options);
  trainer.plan().verify();
  Trained t;
  auto step = [&](int number) {
    t.losses.push_back(trainer.accumulate(batch, 1.0f / static_cast<float>(batch.trained)));
    t.norms.push_back(trainer.step(number, 1e-3f));
  };
  const auto values = [&] {
    trainer.bring_home();
    std::vector<double> all;
    for (const auto& g : parameters.groups)
      for (std::int64_t i = 0; i < g.values->spec.numel(); ++i) all.push_back(get(*g.values, i));
    return all;
  };
  for (int number = 1; number <= 3; ++number) step(number);
  std::vector<std::vector<std::byte>> saved;
  for (const auto& [name, s] : trainer.state()) saved.push_back(bytes_in(*s));
  step(4), step(5);
  t.values = values();
  const auto state = trainer.state();
  for (std::size_t i = 0; i < state.size(); ++i)
    std::memcpy(state[i].second->as<void>(), saved[i].data(), saved[i].size());
  trainer.state_written();
  step(4), step(5);
  t.again = values();
  return t;
}

TEST(FullTraining, AllWeightsFollowTheCpusAndRepeatBitForBit) {
  const Kind kinds[] = {
      {}, {.tied = true}, {.narrow = true}, {.tied = true, .narrow = true, .eight_bit = true}};
  for (const Kind& s : kinds) {
    SCOPED_TRACE(fmt::format("tied {} narrow {} eight-bit {}", s.tied, s.narrow, s.eight_bit));
    const Trained want = train_all(cpu_backend(), s), got = train_all(test_backend(), s);
    EXPECT_LT(want.losses[4], want.losses[0]);
    for (std::size_t i = 0; i < want.losses.size(); ++i) {
      EXPECT_NEAR(got.losses[i], want.losses[i], (s.eight_bit ? 2e-3 : 1e-4) * want.losses[i]) << i;
      EXPECT_NEAR(got.norms[i], want.norms[i], (s.eight_bit ? 2e-2 : 2e-3) * want.norms[i]) << i;
    }
    EXPECT_EQ(got.values, got.again);
    EXPECT_EQ(got.losses[6], got.losses[4]);
    EXPECT_LE(relative_error(got.values, want.values), s.eight_bit ? 5e-3 : 1e-3);
  }
}

// bf16 products round operands to 8 bits, here and there in another order of summation.
TEST(FullTraining, InBf16ArithmeticTheLossFallsAsInFp32) {
  const Trained want = train_all(cpu_backend(), {.narrow = true}),
                got = train_all(test_backend(), {.narrow = true, .compute = Compute::bf16});
  for (std::size_t i = 0; i < want.losses.size(); ++i)
    EXPECT_NEAR(got.losses[i], want.losses[i], 0.02 * want.losses[i]) << i;
  EXPECT_EQ(got.values, got.again);
}

}  // namespace
}  // namespace supersonic::testing
