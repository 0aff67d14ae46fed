// Where a model's weights lie while it is trained beside a device: what is left of the budget holds
// matrices as bf16, and those are the numbers that products would make of the quantized ones.
#include "../core/two_place_backend.h"
#include "core/device.h"
#include "ops/dequantize.h"
#include "smollm2_lora.h"

namespace supersonic::testing {
namespace {

constexpr std::int64_t kTokens = 192;

struct ResidenceTest : ::testing::Test {
  TwoPlaceBackend backend{5};
  models::Model model;
  nn::LoraSet lora;

  void SetUp() override {
    if (!std::filesystem::exists(model_path())) GTEST_SKIP() << "no model at " << model_path();
    model = models::load_model(model_path());
    lora = train::make_lora(model, {}, true);
  }
  train::TrainMemory planned(std::size_t budget, Compute compute = Compute::bf16) {
    return train::planned_memory(model, lora, backend, kTokens, compute, {}, {.budget = budget});
  }
  models::Residence chosen(std::size_t budget, Compute compute = Compute::bf16) {
    return train::choose_residence(model, lora, backend, kTokens, compute, {}, {.budget = budget});
  }
};

TEST_F(ResidenceTest, HalfOfWhatIsLeftHoldsWeightsAsBf16) {
  const std::size_t each = models::bytes_to_decode_layer(model), packed = planned(SIZE_MAX).total(),
                    weights = planned(SIZE_MAX).weights;
  ASSERT_GT(each, 0u);
  EXPECT_EQ(chosen(packed).dense, 0);
  EXPECT_EQ(chosen(packed + 2 * each - 1).dense, 0);
  EXPECT_EQ(chosen(packed + 6 * each).dense, 3);
  const train::TrainMemory three = planned(packed + 6 * each);
  EXPECT_EQ(three.weights, weights + 3 * each);
  EXPECT_LE(three.total(), packed + 6 * each);
  const auto layers = static_cast<std::int64_t>(model.layers.size());
  EXPECT_EQ(chosen(packed + 100 * model.layers.size() * each).dense, layers);
  EXPECT_EQ(chosen(SIZE_MAX).dense, 0) << "no budget: nothing is known to be left";
  for (const Compute other : {Compute::fp32, Compute::fp8})
    EXPECT_EQ(chosen(packed * 4, other).dense, 0);
}

TEST_F(ResidenceTest, MatricesKeptAsBf16AreTheDecodedOnes) {
  const models::Model before = model;
  models::make_resident(model, backend, {.dense = 2});
  int dense = 0;
  for (std::size_t i = 0; i < model.layers.size(); ++i) {
    const nn::Linear &was = before.layers[i].gate, &is = model.layers[i].gate;
    if (is.weight->spec.format) {
      EXPECT_EQ(is.weight->bytes, was.weight->bytes);
      continue;
    }
    ++dense;
    const Tensor want = dequantize(from_storage(was.weight), DType::bf16);
    const StorageRef got = Storage::make(is.weight->spec);
    copy_contents(*got, *is.weight, backend);
    const std::span<const bf16> a = read<bf16>(want), b = got->values<bf16>();
    ASSERT_EQ(a.size(), b.size());
    EXPECT_EQ(std::memcmp(a.data(), b.data(), a.size_bytes()), 0) << "layer " << i;
  }
  EXPECT_EQ(dense, 2);
}

}  // namespace
}  // namespace supersonic::testing
