// Sessions: however tokens are fed, the logits are those of one pass without a cache (Scorer),
// within what fp32 sums in another order may differ by.
#include "infer/session.h"

#include <gtest/gtest.h>

#include <set>

#include "core/two_place_backend.h"
#include "infer/random_model.h"
#include "infer/sampler.h"
#include "infer/score.h"
#include "support/allocations.h"
#include "support/device.h"

namespace supersonic::testing {
namespace {

using infer::Session;
using Ids = std::vector<std::int32_t>;

constexpr double kFp32 = 2e-5;  // sums of about 100 terms in another order, through two layers

struct Fixture {
  models::Model model;
  Executor executor{test_backend()};
  explicit Fixture(std::int64_t window = 0, std::int64_t head_dim = 16)
      : model(random_model(window, head_dim)) {
    models::make_resident(model, test_backend());
  }

  Session session(std::int64_t chunk, std::int64_t context = 0) {
    infer::SessionOptions o;
    o.compute = Compute::fp32, o.kv_type = {DType::f32};
    o.chunk = chunk, o.context = context;
    return Session(model, executor, o);
  }
  Ids ids(std::size_t n) const { return random_ids(n, model.config.vocab_size); }
  // The last row of one pass over all ids.
  std::vector<float> expected(const Ids& ids) {
    infer::Scorer scorer(model, executor, Compute::fp32, static_cast<std::int64_t>(ids.size()),
                         true);
    scorer.nll(ids, Ids(ids.size(), -1));
    const auto row = scorer.logits(static_cast<std::int64_t>(ids.size()) - 1);
    return {row.begin(), row.end()};
  }
};

std::vector<float> copy(std::span<const float> row) { return {row.begin(), row.end()}; }

TEST(Session, FeedingInChunksOfAnySizeEqualsOnePass) {
  Fixture f;
  const Ids ids = f.ids(75);
  const auto expected = f.expected(ids);
  for (const std::int64_t chunk : {1, 7, 16, 64, 512}) {
    Session s = f.session(chunk);
    EXPECT_LE(relative_difference(s.feed(ids), expected), kFp32) << "chunk " << chunk;
    EXPECT_EQ(s.position(), 75);
  }
}

TEST(Session, LogitsAreTheSameOnBothSidesOfEveryBucketBorder) {
  Fixture f;
  for (const std::size_t n : {1u, 2u, 3u, 31u, 32u, 33u, 64u, 255u, 256u, 257u, 513u}) {
    const Ids ids = f.ids(n);
    Session s = f.session(128);
    EXPECT_LE(relative_difference(s.feed(ids), f.expected(ids)), kFp32) << n << " tokens";
  }
}

TEST(Session, ATokenAtATimeEqualsOnePassAcrossTheFirstContextBucket) {
  Fixture f;
  const Ids ids = f.ids(261);
  Session s = f.session(64);
  s.feed(std::span(ids).first(250));
  for (std::size_t i = 250; i < ids.size(); ++i) {
    const auto got = copy(s.feed({&ids[i], 1}));
    EXPECT_LE(
        relative_difference(
            got, f.expected(Ids(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(i) + 1))),
        kFp32)
        << i;
  }
}

TEST(Session, ASlidingWindowHidesOldTokens) {
  Fixture f(20);
  const Ids ids = f.ids(90);
  Session s = f.session(32);
  EXPECT_LE(relative_difference(s.feed(ids), f.expected(ids)), kFp32);
  Fixture full;
  EXPECT_GT(relative_difference(full.expected(ids), f.expected(ids)), 1e-2)
      << "the window must matter for this test to say anything";
}

TEST(Session, RewindForgets) {
  Fixture f;
  const Ids ids = f.ids(40);
  Session s = f.session(16);
  s.feed(ids);
  const Ids other(ids.rbegin(), ids.rbegin() + 10);
  s.rewind(25);
  EXPECT_EQ(s.position(), 25);
  Ids joined(ids.begin(), ids.begin() + 25);
  joined.insert(joined.end(), other.begin(), other.end());
  EXPECT_LE(relative_difference(s.feed(other), f.expected(joined)), kFp32);
  EXPECT_THROW(s.rewind(36), Error);
}

// The same text by feeding each token and sampling from the logits that come back.
Ids sampled_on_the_host(Session& s, const Ids& prompt, std::size_t n,
                        const infer::SamplerOptions& o, std::int64_t vocabulary) {
  infer::Sampler sampler(static_cast<int>(vocabulary), o);
  sampler.accept(prompt);
  Ids out;
  std::span<const std::int32_t> next = prompt;
  while (out.size() < n) {
    const auto logits = s.feed(next);
    out.push_back(sampler.sample(logits.first(static_cast<std::size_t>(vocabulary)),
                                 static_cast<std::uint32_t>(s.position())));
    sampler.accept(out.back());
    next = {&out.back(), 1};
  }
  return out;
}

// The first token from the prompt's logits, the others from steps that sample.
Ids sampled_in_steps(Session& s, const Ids& prompt, std::size_t n, const infer::SamplerOptions& o,
                     std::int64_t vocabulary) {
  Ids out = sampled_on_the_host(s, prompt, 1, o, vocabulary);
  infer::Sampler sampler(static_cast<int>(vocabulary), o);
  sampler.accept(prompt);
  sampler.accept(out);
  s.start(out[0], sampler.settings(), sampler.seen(), static_cast<std::int64_t>(n) - 1);
  while (out.size() < n) out.push_back(s.next());
  return out;
}

const std::vector<infer::SamplerOptions> kSettings = {
    {.temperature = 0},
    {.temperature = 0, .repetition_penalty = 1.4f},
    {.temperature = 1, .top_k = 0, .top_p = 1, .min_p = 0, .seed = 5},
    {.temperature = 0.7f, .top_k = 40, .top_p = 0.95f, .min_p = 0.05f, .seed = 6},
    {.temperature = 1.3f, .top_k = 7, .top_p = 1, .min_p = 0, .seed = 7, .sample = 2},
    {.temperature = 2,
     .top_k = 0,
     .top_p = 0.6f,
     .min_p = 0,
     .repetition_penalty = 1.2f,
     .seed = 8},
    {.temperature = 1, .top_k = 0, .top_p = 1, .min_p = 0.3f, .seed = 9},
};

TEST(Session, StepsThatSampleWriteTheTextThatSamplingFromTheirLogitsDoes) {
  for (const std::int64_t window : {std::int64_t{0}, std::int64_t{24}}) {
    Fixture f(window);
    const Ids prompt = f.ids(90);  // the 200 tokens after it cross the first bucket's border
    for (const std::int64_t vocabulary : {f.model.config.vocab_size, std::int64_t{60}})
      for (const auto& o : kSettings) {
        SCOPED_TRACE(fmt::format("window {}, vocabulary {}, seed {}", window, vocabulary, o.seed));
        Session host = f.session(64), steps = f.session(64);
        const Ids want = sampled_on_the_host(host, prompt, 200, o, vocabulary);
        EXPECT_EQ(sampled_in_steps(steps, prompt, 200, o, vocabulary), want);
        EXPECT_EQ(steps.position(), host.position());
        EXPECT_GT(std::set<std::int32_t>(want.begin(), want.end()).size(), o.seed ? 9u : 0u);
      }
  }
}

// Where all that a step reads and writes lies in another place than its kernels, no step can begin
// before the last one has sent its choice home.
TEST(Session, StepsThatSampleWriteTheSameTextThroughCopies) {
  const models::Model model = random_model();
  const Ids prompt = random_ids(20, model.config.vocab_size);
  infer::SessionOptions options;
  options.compute = Compute::fp32, options.kv_type = {DType::f32}, options.chunk = 32;
  const auto text = [&](Backend& backend) {
    Executor executor(backend);
    Session s(model, executor, options);
    return sampled_in_steps(s, prompt, 12, kSettings[1], model.config.vocab_size);
  };
  TwoPlaceBackend two_places(3);
  EXPECT_EQ(text(two_places), text(cpu_backend()));
}

TEST(Session, WhatFollowsATextThatWasEndedEarlyDoesNotSeeItsEnd) {
  Fixture f;
  const Ids prompt = f.ids(20), more = f.ids(33);
  const infer::SamplerOptions o{.temperature = 1, .seed = 3};
  Session s = f.session(16);
  const Ids text = sampled_in_steps(s, prompt, 6, o, f.model.config.vocab_size);
  infer::Sampler sampler(static_cast<int>(f.model.config.vocab_size), o);
  s.start(text.back(), sampler.settings(), sampler.seen(), 100);
  const std::int32_t next = s.next();  // and ends here, with more on its way
  Ids all = prompt;
  all.insert(all.end(), text.begin(), text.end());
  EXPECT_EQ(s.position(), static_cast<std::int64_t>(all.size()));
  all.insert(all.end(), more.begin(), more.end());
  EXPECT_LE(relative_difference(s.feed(more), f.expected(all)), kFp32);
  s.rewind(static_cast<std::int64_t>(prompt.size()));
  for (std::size_t i = 0; i < text.size(); ++i) s.feed({&text[i], 1});
  sampler.accept(all);
  s.start(more[0], sampler.settings(), sampler.seen(), 3);
  s.next(), s.stop();
  EXPECT_THROW(s.next(), Error) << "nothing was started";
  EXPECT_GE(next, 0);
}

TEST(Session, StepsThatSampleEndWithTheContext) {
  Fixture f;
  const Ids prompt = f.ids(16);
  infer::Sampler greedy(static_cast<int>(f.model.config.vocab_size), {.temperature = 0});
  Session s = f.session(16, 20);
  s.feed(prompt);
  s.start(1, greedy.settings(), greedy.seen(), 100);
  for (int i = 0; i < 4; ++i) s.next();
  EXPECT_EQ(s.position(), 20);
  EXPECT_THROW(s.next(), Error);
  s.rewind(16);
  EXPECT_LE(relative_difference(s.feed({prompt.data(), 4}), f.expected([&] {
              Ids ids = prompt;
              ids.insert(ids.end(), prompt.begin(), prompt.begin() + 4);
              return ids;
            }())),
            kFp32);
}

TEST(Session, AFullContextIsRefusedAndNothingIsAppended) {
  Fixture f;
  const Ids ids = f.ids(101);
  Session s = f.session(16, 100);
  EXPECT_EQ(s.capacity(), 100);
  try {
    s.feed(ids);
    FAIL() << "101 tokens went into a context of 100";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::usage);
    EXPECT_NE(std::string(e.what()).find("100"), std::string::npos) << e.what();
    EXPECT_NE(std::string(e.what()).find("101"), std::string::npos) << e.what();
  }
  EXPECT_EQ(s.position(), 0);
  const Ids exact(ids.begin(), ids.begin() + 100);
  EXPECT_LE(relative_difference(s.feed(exact), f.expected(exact)), kFp32);
  EXPECT_THROW(s.feed({ids.data(), 1}), Error);
}

// A cache of any type gives the logits of one pass that reads its keys and values from a cache of
// that type: bit by bit the same codes, however they got there.
TEST(Session, ACacheOfAnyTypeReadsTheSameHoweverItWasFed) {
  Fixture f(0, 32);
  const Ids ids = f.ids(75);
  const auto exact = f.expected(ids);
  for (const char* name : {"bf16", "q8_0", "fp8"}) {
    const Format* format = find_format(name);
    const models::TensorType type{format ? DType::quant : DType::bf16, format};
    infer::Scorer scorer(f.model, f.executor, Compute::fp32, 75, true, nullptr, type);
    scorer.nll(ids, Ids(ids.size(), -1));
    const auto expected = copy(scorer.logits(74));
    EXPECT_GT(relative_difference(expected, exact), 1e-4) << name << " rounds";
    EXPECT_LT(relative_difference(expected, exact), format && format->block == 1 ? 0.1 : 0.02)
        << name;
    for (const std::int64_t chunk : {1, 7, 64}) {
      infer::SessionOptions o;
      o.compute = Compute::fp32, o.kv_type = type, o.chunk = chunk;
      Session s(f.model, f.executor, o);
      // Where a value lies between two codes, sums in another order may choose the other one.
      EXPECT_LE(relative_difference(s.feed(ids), expected), 2e-3) << name << ", chunk " << chunk;
    }
  }
}

TEST(Session, HeadsThatBlocksDoNotDivideAreRefusedByName) {
  Fixture f;  // heads of 16
  infer::SessionOptions o;
  o.kv_type = {DType::quant, find_format("q8_0")};
  for (const bool plan : {false, true}) try {
      plan ? static_cast<void>(infer::plan_session(f.model, f.executor.backend(), o))
           : static_cast<void>(Session(f.model, f.executor, o));
      FAIL() << "blocks of 32 in heads of 16";
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::usage);
      EXPECT_NE(std::string(e.what()).find("--kv-type"), std::string::npos) << e.what();
    }
}

TEST(Session, WarmStepsAllocateNothing) {
  if (!counts_allocations()) GTEST_SKIP() << "a sanitizer's allocator is not counted";
  if (apart(test_backend())) GTEST_SKIP() << "a GPU's driver allocates when a plan is captured";
  Fixture f;
  const Ids ids = f.ids(60);
  Session s = f.session(16);
  const infer::Sampler sampler(static_cast<int>(f.model.config.vocab_size), {.top_k = 7});
  const auto round = [&] {
    s.rewind(0);
    s.feed(std::span(ids).first(40));
    for (std::size_t i = 40; i < ids.size(); ++i) s.feed({&ids[i], 1});
    s.start(1, sampler.settings(), sampler.seen(), 9);
    for (int i = 0; i < 9; ++i) s.next();
  };
  const std::uint64_t cold = allocations();
  round();
  EXPECT_GT(allocations() - cold, 0u) << "the first round makes the programs: nothing is counted";
  const std::uint64_t before = allocations();
  round();
  EXPECT_EQ(allocations() - before, 0u);
}

TEST(Session, ThePlansPeakIsWhatTheSessionUses) {
  Fixture f;
  infer::SessionOptions o;
  o.compute = Compute::fp32, o.kv_type = {DType::f32}, o.context = 300, o.chunk = 64;
  const infer::SessionMemory planned = infer::plan_session(f.model, f.executor.backend(), o);
  Session s(f.model, f.executor, o);
  const Ids ids = f.ids(290);
  s.feed(ids);
  for (int i = 0; i < 10; ++i) s.feed({&ids[i], 1});
  EXPECT_EQ(planned.cache, s.cache_bytes());
  const std::size_t used = f.executor.arena_bytes(f.executor.backend().compute_place());
  EXPECT_GE(planned.arena, used);
  EXPECT_LE(static_cast<double>(planned.arena), 1.1 * static_cast<double>(used));
}

}  // namespace
}  // namespace supersonic::testing
