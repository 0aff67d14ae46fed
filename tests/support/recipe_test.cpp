// The recipe and the reader of golden files: both sides of the fence must agree before any other
// golden means something.
#include "support/recipe.h"

#include <gtest/gtest.h>

#include "support/golden.h"

namespace supersonic::testing {

TEST(Recipe, gives_the_numbers_that_the_recorders_use) {
  const Golden golden("recipe/recipe");
  const auto& json = golden.json();
  EXPECT_EQ(recipe::seed_of("lora layers.0.q_proj.A"),
            std::stoull(json["seed"].get<std::string>()));
  const std::vector<float> wanted = golden.array<float>("uniform");
  EXPECT_EQ(recipe::uniform("lora layers.0.q_proj.A", wanted.size(), 0.03125F), wanted);
  const uint64_t seed = recipe::seed_of("ids");
  const std::vector<int32_t> below = golden.array<int32_t>("below");
  for (size_t i = 0; i < below.size(); ++i) EXPECT_EQ(recipe::below(seed, i, 512), below[i]) << i;
}

TEST(Recipe, projections_agree_with_the_recorders_and_measure_a_difference) {
  const Golden golden("recipe/recipe");
  std::vector<float> values = golden.array<float>("uniform");
  const std::vector<double> sums = golden.array<double>("projections");
  const std::vector<double> ours = recipe::projections(values);
  ASSERT_EQ(ours.size(), sums.size());
  double square = 0;
  for (size_t k = 0; k < sums.size(); ++k) EXPECT_NEAR(ours[k], sums[k], 1e-9) << k;
  for (const float value : values) square += static_cast<double>(value) * value;
  const double norm = std::sqrt(square);
  const std::vector<float> stored(sums.begin(), sums.end());
  EXPECT_LT(recipe::relative_error(values, stored, norm), 1e-6);
  for (float& value : values) value *= 1.01F;
  EXPECT_NEAR(recipe::relative_error(values, stored, norm), 0.01, 0.006);
}

}  // namespace supersonic::testing
