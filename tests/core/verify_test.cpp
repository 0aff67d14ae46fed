// verify() must notice what a planner's bug would do: each test corrupts a copy of a sound plan in one way.
#include <gtest/gtest.h>

#include "tiny_model.h"
#include "two_place_backend.h"

namespace supersonic {

// Reaches into a copy of a plan.
struct PlanSurgery {
  Plan plan;
  explicit PlanSurgery(const Plan& p) : plan(p) {}
  std::vector<Step>& steps() { return plan.steps_; }
  std::size_t& arena(std::size_t i = 0) { return plan.arenas_[i].second; }
};

namespace testing {
namespace {

std::shared_ptr<const Plan> one_place() {
  static const TinyModel model(2);
  return plan_only([] { return model.step(); }, cpu_backend(), {});
}
std::shared_ptr<const Plan> two_places() {
  static const TinyModel model(2);
  static TwoPlaceBackend backend(1);
  return plan_only([] { return model.step(); }, backend, {});
}
bool sound(const Plan& plan) {
  try {
    plan.verify();
    return true;
  } catch (const Error&) {
    return false;
  }
}

TEST(Verify, SoundPlansPass) {
  EXPECT_TRUE(sound(*one_place()));
  EXPECT_TRUE(sound(*two_places()));
}

TEST(Verify, AnOutputMovedOntoALiveValueIsNoticed) {
  const auto plan = one_place();
  int tried = 0;
  for (std::size_t i = 1; i < plan->steps().size(); ++i) {
    const Step& s = plan->steps()[i];
    if (s.out.empty() || s.out[0].kind != Location::arena) continue;
    // A value made earlier, read later, of another place in the arena.
    for (std::size_t j = 0; j < i; ++j) {
      const Step& maker = plan->steps()[j];
      if (maker.out.empty() || maker.out[0].kind != Location::arena) continue;
      bool read_later = false;
      for (std::size_t k = i + 1; k < plan->steps().size(); ++k)
        for (const auto& at : plan->steps()[k].in) read_later |= at.value == maker.out[0].value;
      if (!read_later) continue;
      PlanSurgery broken(*plan);
      broken.steps()[i].out[0].offset = maker.out[0].offset;
      EXPECT_FALSE(sound(broken.plan)) << "step " << i << " over step " << j;
      ++tried;
      break;
    }
  }
  EXPECT_GT(tried, 10);
}

TEST(Verify, AnInputThatPointsElsewhereIsNoticed) {
  const auto plan = one_place();
  int tried = 0;
  for (std::size_t i = 0; i < plan->steps().size(); ++i) {
    for (std::size_t k = 0; k < plan->steps()[i].in.size(); ++k) {
      if (plan->steps()[i].in[k].kind != Location::arena) continue;
      PlanSurgery broken(*plan);
      broken.steps()[i].in[k].offset += 64;
      EXPECT_FALSE(sound(broken.plan)) << "step " << i << " input " << k;
      ++tried;
    }
  }
  EXPECT_GT(tried, 30);
}

TEST(Verify, AnArenaThatIsTooSmallIsNoticed) {
  PlanSurgery broken(*one_place());
  broken.arena() -= 64;
  EXPECT_FALSE(sound(broken.plan));
}

TEST(Verify, AWorkspaceOverAnOperandIsNoticed) {
  const auto plan = one_place();
  int tried = 0;
  for (std::size_t i = 0; i < plan->steps().size(); ++i) {
    const Step& s = plan->steps()[i];
    if (s.workspace.kind == Location::none || s.in.empty() || s.in[0].kind != Location::arena) continue;
    PlanSurgery broken(*plan);
    broken.steps()[i].workspace.offset = s.in[0].offset;
    broken.arena() += s.workspace.bytes;  // so that it is this that is noticed
    EXPECT_FALSE(sound(broken.plan)) << "step " << i;
    ++tried;
  }
  EXPECT_GT(tried, 3);
}

TEST(Verify, TwoStepsInTheWrongOrderAreNoticed) {
  const auto plan = one_place();
  int tried = 0;
  for (std::size_t i = 0; i + 1 < plan->steps().size(); ++i) {
    const Step &a = plan->steps()[i], &b = plan->steps()[i + 1];
    bool depends = false;
    for (const auto& in : b.in)
      for (const auto& out : a.out) depends |= in.kind == Location::arena && out.kind == Location::arena && in.value == out.value;
    if (!depends) continue;
    PlanSurgery broken(*plan);
    std::swap(broken.steps()[i], broken.steps()[i + 1]);
    EXPECT_FALSE(sound(broken.plan)) << "step " << i;
    ++tried;
  }
  EXPECT_GT(tried, 10);
}

TEST(Verify, AMissingWaitIsNoticedUnlessAnotherImpliesIt) {
  const auto plan = two_places();
  int waits = 0, noticed = 0;
  for (std::size_t i = 0; i < plan->steps().size(); ++i) {
    for (std::size_t w = 0; w < plan->steps()[i].waits.size(); ++w) {
      PlanSurgery broken(*plan);
      broken.steps()[i].waits.erase(broken.steps()[i].waits.begin() + static_cast<std::ptrdiff_t>(w));
      ++waits;
      noticed += !sound(broken.plan);
    }
  }
  EXPECT_GT(noticed, 30) << "of " << waits;
  PlanSurgery none(*plan);
  for (Step& s : none.steps()) s.waits.clear();
  EXPECT_FALSE(sound(none.plan));
}

}  // namespace
}  // namespace testing
}  // namespace supersonic
