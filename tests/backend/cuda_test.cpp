// The GPU backend: its memory, copies, lanes, replay and reports; storages that live on the device;
// decoding bit for bit; training against the CPU. Skipped where no GPU answers. The generated
// operation tests run there with SUPERSONIC_TEST_DEVICE=cuda.
#include <gtest/gtest.h>

#include "../core/tiny_model.h"
#include "../infer/random_model.h"
#include "backend/cpu/cpu_backend.h"
#include "ops/dequantize.h"
#include "ops/kv_append.h"
#include "ops/reduce.h"
#include "ops/rope.h"
#include "text/dataset_pack.h"
#include "train/trainer.h"

namespace supersonic::testing {
namespace {

class Cuda : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string why;
    if (list_gpus(&why).empty()) GTEST_SKIP() << why;
  }
  Backend& gpu() { return device_backend("cuda"); }
};

StorageRef numbers(Shape shape, std::uint64_t seed = 1, DType type = DType::f32) {
  return random_storage({shape, type, nullptr}, seed, 1);
}
StorageRef whole_numbers(std::initializer_list<std::int32_t> list) {
  StorageRef s =
      Storage::make({Shape{static_cast<std::int64_t>(list.size())}, DType::i32, nullptr});
  std::copy(list.begin(), list.end(), s->as<std::int32_t>());
  return s;
}
StorageRef home(const StorageRef& s, Backend& b) {
  StorageRef copy = Storage::make(s->spec);
  copy_contents(*copy, *s, b);
  return copy;
}
std::vector<double> values_of(const Storage& s) {
  std::vector<double> v(static_cast<std::size_t>(s.spec.numel()));
  for (std::size_t i = 0; i < v.size(); ++i) v[i] = get(s, static_cast<std::int64_t>(i));
  return v;
}
std::vector<float> state_as_floats(const std::vector<std::byte>& state) {
  std::vector<float> v(state.size() / 4);
  std::memcpy(v.data(), state.data(), v.size() * 4);
  return v;
}
std::vector<double> widened_state(const std::vector<std::byte>& state) {
  const auto v = state_as_floats(state);
  return {v.begin(), v.end()};
}

TEST(Device, NamesAreCheckedAndWhatIsMissingIsSaidWithItsRemedy) {
  EXPECT_EQ(&device_backend("cpu"), &cpu_backend());
  for (const char* wrong : {"gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:1x", ""}) {
    try {
      device_backend(wrong);
      FAIL() << wrong;
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::usage) << wrong;
    }
  }
  std::string why;
  if (!list_gpus(&why).empty()) {
    EXPECT_NE(&device_backend("auto"), &cpu_backend());
    EXPECT_THROW(device_backend("cuda:63"), Error);
    return;
  }
  EXPECT_EQ(&device_backend("auto"), &cpu_backend());
  EXPECT_FALSE(why.empty());
  try {
    device_backend("cuda");
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("--device cpu"), std::string::npos) << e.what();
  }
}

TEST_F(Cuda, EachDeviceIsDescribed) {
  for (const GpuInfo& g : list_gpus()) {
    EXPECT_NE(g.name[0], '\0');
    EXPECT_GE(g.capability_major * 10 + g.capability_minor, 75);
    EXPECT_GT(g.free_bytes, 0u);
    EXPECT_LE(g.free_bytes, g.total_bytes);
    EXPECT_GE(g.cuda_version, 13000);
  }
}

TEST_F(Cuda, AnArenaKeepsItsAddressAndItsContentsWhileItGrows) {
  for (const Place place : {Place{Place::device, 0}, Place{}, Place{Place::pinned, 0}}) {
    const auto arena = gpu().arena(place);
    arena->grow(1000);
    void* const base = arena->base();
    std::vector<std::uint32_t> sent(250), got(250);
    for (std::size_t i = 0; i < sent.size(); ++i)
      sent[i] = static_cast<std::uint32_t>(i * 2654435761u);
    write_bytes(gpu(), base, place, sent.data(), 1000);
    for (const std::size_t bytes : {std::size_t{5} << 20, std::size_t{300} << 20}) {
      arena->grow(bytes);
      ASSERT_EQ(arena->base(), base);
      std::uint64_t last = 0, mark = 0x0123456789abcdefu;
      write_bytes(gpu(), static_cast<std::byte*>(base) + bytes - 8, place, &mark, 8);
      gpu().copy(&last, {}, static_cast<std::byte*>(base) + bytes - 8, place, 8,
                 gpu().lane(LaneKind::copy_out));
      gpu().copy(got.data(), {}, base, place, 1000, gpu().lane(LaneKind::copy_out));
      gpu().sync();
      EXPECT_EQ(last, mark);
      EXPECT_EQ(got, sent);
    }
  }
}

TEST_F(Cuda, WhatDoesNotFitIsRefusedBeforeItRuns) {
  const std::int64_t more = static_cast<std::int64_t>(list_gpus()[0].total_bytes) + (1 << 20);
  try {
    gpu().arena(gpu().compute_place())->grow(static_cast<std::size_t>(more));
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::memory) << e.what();
  }
  try {
    gpu().storage({Shape{more}, DType::u8, nullptr}, "giant");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::memory) << e.what();
    EXPECT_NE(std::string(e.what()).find("'giant'"), std::string::npos) << e.what();
  }
  Executor executor(gpu());  // the device is as usable as before
  Program p = Program::capture([&] { return Tensors{fill({3}, DType::f32, 2)}; }, executor);
  p.run();
  EXPECT_EQ(p.result(0).values<float>()[2], 2.0f);
}

TEST_F(Cuda, AStorageStartsAsZerosAndComesBackAsItWasSent) {
  const StorageRef zeros = home(gpu().storage({Shape{1000}, DType::f32, nullptr}, "zeros"), gpu());
  for (float x : zeros->values<float>()) ASSERT_EQ(x, 0.0f);
  for (const Format* f : all_formats()) {
    const StorageRef w = random_storage({Shape{6, 256}, DType::quant, f}, 3, 1);
    const StorageRef there = resident(w, gpu());
    EXPECT_EQ(there->place, gpu().compute_place());
    EXPECT_EQ(resident(there, gpu()), there);
    EXPECT_EQ(bytes_in(*home(there, gpu())), bytes_in(*w)) << f->name;
  }
}

// Copies from 4 MiB on go through several threads (backend/cuda/upload.h).
TEST_F(Cuda, ALargeStorageArrivesWholeWhateverItsSize) {
  constexpr std::int64_t kLeast = 1 << 20;  // floats
  for (const std::int64_t n : {kLeast - 1, kLeast, kLeast + 1, 5 * kLeast + 12345, 17 * kLeast}) {
    const StorageRef sent = numbers(Shape{n}, static_cast<std::uint64_t>(n));
    const StorageRef back = home(resident(sent, gpu()), gpu());
    EXPECT_EQ(std::memcmp(sent->as<void>(), back->as<void>(), sent->bytes), 0) << n;
  }
}

TEST_F(Cuda, AResidentWeightIsReadInPlaceAndAHostWeightIsCopiedIn) {
  const StorageRef x = numbers({5, 64}),
                   w = random_storage({Shape{32, 64}, DType::quant, find_format("q4_1")}, 2, 1);
  const StorageRef there = resident(w, gpu());
  auto product = [&](const StorageRef& weight) {
    return [&, weight] { return Tensors{linear(from_storage(x), from_storage(weight))}; };
  };
  auto copies_in = [&](const std::function<Tensors()>& fn) {
    int n = 0;
    const auto plan = plan_only(fn, gpu(), {});
    for (const Step& s : plan->steps()) n += s.lane == LaneKind::copy_in;
    return n;
  };
  EXPECT_EQ(copies_in(product(there)), 1);  // x alone
  EXPECT_EQ(copies_in(product(w)), 2);
  const auto want = run(product(w), {}, cpu_backend())[0];
  EXPECT_LE(relative_error(run(product(there), {}, gpu())[0], want), 1e-5);
  EXPECT_LE(relative_error(run(product(w), {}, gpu())[0], want), 1e-5);
}

TEST_F(Cuda, AWrittenResidentStorageKeepsWhatAPlanWrote) {
  const StorageRef there = resident(numbers({64}, 1), gpu()), start = numbers({64}, 1);
  Executor executor(gpu());
  Program p = Program::capture(
      [&] {
        accumulate(from_storage(there), scale(from_storage(there), 0.5));
        return Tensors{};
      },
      executor);
  for (int i = 0; i < 3; ++i) p.run();
  const StorageRef got = home(there, gpu());
  for (int i = 0; i < 64; ++i)
    EXPECT_FLOAT_EQ(got->values<float>()[i], start->values<float>()[i] * 1.5f * 1.5f * 1.5f);
}

TEST_F(Cuda, AReplayedPlanReadsItsInputsAnewAndDoesWhatTheLoopDid) {
  const TinyModel model(3);
  const StorageRef scale_by = numbers({1});
  auto fn = [&] { return Tensors{mul(model.step()[0], from_storage(scale_by))}; };
  const auto start = model.state();
  std::vector<float> looped, replayed;
  Executor executor(gpu());
  for (int step = 0; step < 4; ++step) {  // a program of its own each time: never captured
    scale_by->values<float>()[0] = static_cast<float>(1 + step);
    Program p = Program::capture(fn, executor);
    p.run();
    looped.push_back(p.result(0).values<float>()[0]);
  }
  const auto end = model.state();
  model.restore(start);
  Program p = Program::capture(fn, executor);
  for (int step = 0; step < 4; ++step) {
    scale_by->values<float>()[0] = static_cast<float>(1 + step);
    p.run();
    replayed.push_back(p.result(0).values<float>()[0]);
  }
  EXPECT_EQ(replayed, looped);
  EXPECT_TRUE(model.state() == end);
  model.restore(start);
}

// Looped, recorded and replayed runs, none of which the host waits for; each reads what the last one wrote.
TEST_F(Cuda, RunsThatWereStartedFollowEachOther) {
  const StorageRef first = numbers({4}), sum = resident(first, gpu()),
                   one = resident(numbers({4}, 2), gpu());
  Executor executor(gpu());
  Program p = Program::capture(
      [&] {
        accumulate(from_storage(sum), add(from_storage(sum), from_storage(one)));
        return Tensors{};
      },
      executor);
  const std::unique_ptr<Fence> fence = gpu().fence();
  for (int run = 0; run < 6; ++run) p.start();
  fence->mark();
  fence->wait();
  const StorageRef got = home(sum, gpu()), more = home(one, gpu());
  for (int i = 0; i < 4; ++i) {  // doubled, and some more, six times
    const double want = 64.0 * first->values<float>()[i] + 63.0 * more->values<float>()[i];
    EXPECT_NEAR(got->values<float>()[i], want, 1e-4);
  }
  executor.finish();
}

TEST_F(Cuda, TrainingFollowsTheCpuAtEveryBudgetAndRepeatsItsBits) {
  const TinyModel model(3);
  Executor cpu(cpu_backend());
  const Trace want = train(model, cpu, {}, 3);
  auto fn = [&] { return model.step(); };
  const std::size_t most = plan_only(fn, gpu(), {})->peak(gpu().compute_place()),
                    least = least_budget(fn, gpu());
  for (const std::size_t budget : {SIZE_MAX, least + (most - least) / 2, least}) {
    Policy policy;
    policy.budget = budget;
    Executor executor(gpu());
    const Trace got = train(model, executor, policy, 3), again = train(model, executor, policy, 3);
    for (std::size_t i = 0; i < want.losses.size(); ++i)
      EXPECT_NEAR(got.losses[i], want.losses[i], 1e-4 * std::abs(want.losses[i])) << budget;
    EXPECT_LE(relative_error(widened_state(got.state), widened_state(want.state)), 1e-3) << budget;
    EXPECT_TRUE(got == again) << budget;
  }
}

TEST_F(Cuda, AnIdOutsideOfTheTableIsReportedAndTheDeviceGoesOn) {
  const StorageRef table = random_storage({Shape{10, 32}, DType::quant, find_format("q8_0")}, 1, 1),
                   ids = whole_numbers({3, 9, 10, 0});
  Executor executor(gpu());
  Program p = Program::capture(
      [&] { return Tensors{embedding(from_storage(table), from_storage(ids), DType::f32)}; },
      executor);
  for (const std::int32_t wrong : {10, -1}) {
    ids->as<std::int32_t>()[2] = wrong;
    try {
      p.run();
      FAIL();
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find(
                    fmt::format("id {} at position 2 lies outside the table of 10 rows", wrong)),
                std::string::npos)
          << e.what();
    }
  }
  ids->as<std::int32_t>()[2] = 9;
  p.run();
  for (int i = 0; i < 32; ++i)
    EXPECT_EQ(p.result(0).values<float>()[2 * 32 + i], p.result(0).values<float>()[32 + i]);
}

TEST_F(Cuda, RowsOutsideOfACacheAreReportedAndNotWritten) {
  const StorageRef cache = resident(numbers({8, 2, 4}, 5), gpu()), before = home(cache, gpu()),
                   x = numbers({3, 2, 4}), at = whole_numbers({6});
  Executor executor(gpu());
  Program p = Program::capture(
      [&] {
        kv_append(from_storage(cache), from_storage(x), from_storage(at));
        return Tensors{};
      },
      executor);
  EXPECT_THROW(p.run(), Error);
  EXPECT_EQ(bytes_in(*home(cache, gpu())), bytes_in(*before));
  at->as<std::int32_t>()[0] = 5;
  p.run();
  const StorageRef after = home(cache, gpu());
  for (int i = 0; i < 8 * 8; ++i)
    EXPECT_EQ(after->values<float>()[i],
              i < 5 * 8 ? before->values<float>()[i] : x->values<float>()[i - 5 * 8]);
}

// Any bytes decode as on the CPU, bit for bit; a NaN is a NaN.
TEST_F(Cuda, EveryFormatDecodesToTheBitsOfItsDefinition) {
  for (const Format* f : all_formats()) {
    const std::int64_t cols =
        f->row_blocks ? 768 : 771;  // so that planes of odd sizes follow each other
    for (const bool any_bytes : {false, true}) {
      const StorageRef w = random_storage({Shape{37, cols}, DType::quant, f}, 11, 1);
      if (any_bytes)
        for (std::size_t i = 0; i < w->bytes; ++i)
          w->as<std::uint8_t>()[i] = static_cast<std::uint8_t>(uniform(5, i) * 256);
      const std::int64_t n = w->spec.numel();
      std::vector<float> want(static_cast<std::size_t>(n));
      f->decode(w->planes, 0, n, want.data());
      const StorageRef ids = whole_numbers({36, 0, 17, 17, 5});
      const auto got = run(
          [&] {
            return Tensors{dequantize(from_storage(w), DType::f32),
                           embedding(from_storage(w), from_storage(ids), DType::f32)};
          },
          {}, gpu());
      std::int64_t wrong = 0;
      auto same = [](double a, float b) {
        return (std::isnan(a) && std::isnan(b)) || static_cast<float>(a) == b;
      };
      for (std::int64_t i = 0; i < n; ++i) wrong += !same(got[0][i], want[i]);
      for (std::int64_t i = 0; i < 5 * cols; ++i)
        wrong += !same(got[1][i], want[ids->as<std::int32_t>()[i / cols] * cols + i % cols]);
      EXPECT_EQ(wrong, 0) << f->name << (any_bytes ? " of any bytes" : "");
    }
  }
}

struct Optimized {
  std::vector<double> p;
  std::vector<StorageRef> state;
};

// Six steps of AdamW from the same start; clipping takes hold in some of them.
Optimized optimize(Backend& b, bool eight_bit, std::int64_t n, DType type = DType::f32) {
  const StorageRef p = numbers({n}, 1, type), g = numbers({n}, 2),
                   hyper = Storage::make({Shape{4}, DType::f32, nullptr});
  auto flat = [](DType t, std::int64_t count) { return Storage::make({Shape{count}, t, nullptr}); };
  Optimized o;
  if (eight_bit) {
    o.state = {flat(DType::u8, n), flat(DType::u8, n), flat(DType::f32, (n + 255) / 256),
               flat(DType::f32, (n + 255) / 256)};
    std::memset(o.state[0]->as<void>(), 127, o.state[0]->bytes);
  } else {
    o.state = {flat(DType::f32, n), flat(DType::f32, n)};
  }
  Executor executor(b);
  Program program = Program::capture(
      [&] {
        Tensors in = {from_storage(p)};
        for (const auto& s : o.state) in.push_back(from_storage(s));
        const Tensor grad = from_storage(g);
        in.insert(in.end(), {grad, from_storage(hyper), sum_squares(grad)});
        if (eight_bit)
          record(op<AdamW8bit>(), Attrs::of(AdamW8bit{0.9f, 0.99f, 1e-8f, 0.01f, 77}), in,
                 Where::current());
        else
          record(op<AdamW>(), Attrs::of(AdamW{0.9f, 0.99f, 1e-8f, 0.01f, 77}), in, Where::current());
        return Tensors{};
      },
      executor);
  for (int step = 1; step <= 6; ++step) {
    for (std::int64_t i = 0; i < n; ++i)
      put(*g, i,
          gaussian(100 + static_cast<std::uint64_t>(step), static_cast<std::uint64_t>(i)) *
              (i % 7 == 0 ? 1e-4 : 1));
    put(*hyper, 0, 1e-2), put(*hyper, 1, step), put(*hyper, 2, step % 2 ? 1.0 : 0.0);
    program.run();
  }
  o.p = values_of(*p);
  return o;
}

TEST_F(Cuda, AdamWFollowsTheCpu) {
  for (const std::int64_t n : {1000, 70001}) {
    const Optimized want = optimize(cpu_backend(), false, n), got = optimize(gpu(), false, n);
    EXPECT_LE(relative_error(got.p, want.p), 1e-6) << n;
    for (int s = 0; s < 2; ++s)
      EXPECT_LE(relative_error(values_of(*got.state[s]), values_of(*want.state[s])), 1e-5) << n;
  }
}

// Both round by the same draws: where the fp32 values agree, so do the bf16 ones.
TEST_F(Cuda, AdamWRoundsParametersAsTheCpu) {
  for (const std::int64_t n : {1000, 70001}) {
    const Optimized want = optimize(cpu_backend(), false, n, DType::bf16), got = optimize(gpu(), false, n, DType::bf16);
    std::int64_t other = 0;
    for (std::size_t i = 0; i < want.p.size(); ++i) other += got.p[i] != want.p[i];
    EXPECT_LE(other, n / 100) << n;
    // Moments in 8 bits may differ by a code, and updates by up to some percent of 6e-2.
    EXPECT_LE(relative_error(optimize(gpu(), true, n, DType::bf16).p, optimize(cpu_backend(), true, n, DType::bf16).p), 3e-3) << n;
  }
}

// The CPU finds codes in closed form, the GPU in a table: a value half-way between two entries may
// go either way.
TEST_F(Cuda, AdamWWithEightBitMomentsFollowsTheCpu) {
  for (const std::int64_t n : {1000, 70001}) {
    const Optimized want = optimize(cpu_backend(), true, n), got = optimize(gpu(), true, n);
    EXPECT_LE(relative_error(got.p, want.p), 1e-4) << n;
    for (int s = 0; s < 2; ++s) {
      std::int64_t other = 0;
      for (std::int64_t i = 0; i < n; ++i) {
        const int d = std::abs(int{got.state[s]->as<std::uint8_t>()[i]} -
                               int{want.state[s]->as<std::uint8_t>()[i]});
        EXPECT_LE(d, 1) << "state " << s << " at " << i;
        other += d;
      }
      EXPECT_LE(other, n / 50) << "state " << s;
    }
    for (int s = 2; s < 4; ++s)
      EXPECT_LE(relative_error(values_of(*got.state[s]), values_of(*want.state[s])), 1e-4);
  }
}

struct Trained {
  std::vector<double> losses, adapter;
};

void quantize(models::Model& model) {
  std::uint64_t seed = 1;
  for (nn::Linear* l : model.linears())
    l->weight = random_storage({l->weight->spec.shape, DType::quant, find_format("q8_0")}, seed++, 0.1);
}

// Five steps of a LoRA adapter on a small Llama; then its state is put back by two steps and these
// are done again.
Trained train_adapter(Backend& b, bool eight_bit, const models::Residence& residence = {},
                      const Policy& policy = {}, Compute compute = Compute::fp32,
                      bool quantized = false) {
  models::Model model = random_model();
  if (quantized) quantize(model);
  nn::LoraSet lora =
      train::make_lora(model, {.rank = 4, .alpha = 8, .targets = {}, .seed = 1}, true);
  models::make_resident(model, b, residence);
  Executor executor(b);
  train::OptimizerOptions options;
  options.eight_bit = eight_bit;
  constexpr std::int64_t kTokens = 60;
  train::Trainer trainer(model, lora, executor, kTokens, compute, options, policy);
  text::Batch batch;
  batch.ids = random_ids(kTokens, model.config.vocab_size);
  for (std::int32_t i = 0; i < kTokens; ++i) {
    batch.labels.push_back(i % 6 ? batch.ids[static_cast<std::size_t>(i + 1) % kTokens]
                                 : text::kIgnore);
    batch.positions.push_back(i % 20);
    batch.lo.push_back(i / 20 * 20);
    batch.trained += i % 6 != 0;
  }
  Trained t;
  std::vector<std::vector<std::byte>> saved;
  auto step = [&](int number) {
    t.losses.push_back(trainer.accumulate(batch, 1.0f / static_cast<float>(batch.trained)));
    trainer.step(number, 1e-2f);
  };
  for (int number = 1; number <= 3; ++number) step(number);
  for (const auto& [name, s] : trainer.state()) saved.push_back(bytes_in(*s));
  step(4), step(5);
  const auto state = trainer.state();
  for (std::size_t i = 0; i < state.size(); ++i)
    std::memcpy(state[i].second->as<void>(), saved[i].data(), saved[i].size());
  trainer.state_written();
  step(4), step(5);
  trainer.bring_home();
  t.adapter = values_of(*lora.values);  // the caller's own set receives the values
  return t;
}

TEST_F(Cuda, LoraTrainingFollowsTheCpuAndItsStateGoesBothWays) {
  for (const bool eight_bit : {false, true}) {
    const Trained want = train_adapter(cpu_backend(), eight_bit),
                  got = train_adapter(gpu(), eight_bit);
    EXPECT_LT(want.losses[4], want.losses[0]);
    for (std::size_t i = 0; i < want.losses.size(); ++i)
      EXPECT_NEAR(got.losses[i], want.losses[i], 1e-4 * want.losses[i]) << i;
    EXPECT_EQ(got.losses[5], got.losses[3]);
    EXPECT_EQ(got.losses[6], got.losses[4]);
    EXPECT_LE(relative_error(got.adapter, want.adapter), eight_bit ? 2e-2 : 1e-3);
  }
}

TEST_F(Cuda, WeightsThatStayInHostMemoryTrainToTheSameBits) {
  const Trained want = train_adapter(gpu(), false);
  const auto layers = static_cast<std::int64_t>(random_model().layers.size());
  Policy recomputed;
  recomputed.checkpoint_regions = 100;
  for (const models::Residence& r :
       {models::Residence{true, 0}, models::Residence{true, 1}, models::Residence{true, layers}}) {
    for (const Policy& p : {Policy{}, recomputed}) {
      const Trained got = train_adapter(gpu(), false, r, p);
      EXPECT_EQ(got.losses, want.losses) << r.streamed << " streamed";
      EXPECT_EQ(got.adapter, want.adapter) << r.streamed << " streamed";
    }
  }
}

TEST_F(Cuda, WeightsThatAreKeptAsBf16TrainToTheSameBits) {
  const auto train = [&](std::int64_t dense) {
    return train_adapter(gpu(), false, {.dense = dense}, {}, Compute::bf16, true);
  };
  const Trained want = train(0);
  EXPECT_LT(want.losses[4], want.losses[0]);
  for (const std::int64_t dense : {1, 2}) {
    const Trained got = train(dense);
    EXPECT_EQ(got.losses, want.losses) << dense << " layers";
    EXPECT_EQ(got.adapter, want.adapter) << dense << " layers";
  }
}

TEST_F(Cuda, RotationKeepsItsAccuracyAtAMillionPositions) {
  const StorageRef x = numbers({3, 2, 64}), positions = whole_numbers({1000003, 77, 131071}),
                   inv = Storage::make({Shape{32}, DType::f32, nullptr});
  for (int i = 0; i < 32; ++i) put(*inv, i, std::pow(10000.0, -i / 32.0));
  const auto got = run(
      [&] {
        return Tensors{rope(from_storage(x), from_storage(positions), from_storage(inv), false)};
      },
      {}, gpu())[0];
  std::vector<double> want(got.size());
  for (int t = 0; t < 3; ++t)
    for (int h = 0; h < 2; ++h)
      for (int i = 0; i < 32; ++i) {
        const double angle = static_cast<double>(positions->as<std::int32_t>()[t]) *
                             static_cast<double>(inv->values<float>()[i]);
        const int u = (t * 2 + h) * 64 + i;
        const double a = get(*x, u), b = get(*x, u + 32);
        want[u] = a * std::cos(angle) - b * std::sin(angle);
        want[u + 32] = a * std::sin(angle) + b * std::cos(angle);
      }
  EXPECT_LE(relative_error(got, want), 5e-7);
}

TEST_F(Cuda, LongReductionsKeepFp32Accuracy) {
  for (const Shape& shape : {Shape{3, 50001}, Shape{50001, 3}}) {
    const StorageRef x = numbers(shape, 9);
    const int axis = shape[0] == 3 ? 1 : 0;
    const auto got = run(
        [&] {
          return Tensors{sum(from_storage(x), axis), max(from_storage(x), axis)};
        },
        {}, gpu());
    const auto want = run(
        [&] {
          return Tensors{sum(from_storage(x), axis), max(from_storage(x), axis)};
        },
        {}, cpu_backend());
    EXPECT_LE(relative_error(got[0], want[0]), 2e-5);
    EXPECT_EQ(got[1], want[1]);
  }
}

TEST_F(Cuda, CopiesAndCastsOfEveryPairOfTypes) {
  const DType types[] = {DType::f32, DType::f16, DType::bf16, DType::f64,
                         DType::i32, DType::i64, DType::u8,   DType::i8};
  for (const DType from : types) {
    const StorageRef x = Storage::make({Shape{5, 33}, from, nullptr});
    for (int i = 0; i < 5 * 33; ++i) {
      const double value =
          is_float(from) ? gaussian(3, static_cast<std::uint64_t>(i)) * 20 : i % 120;
      if (from == DType::i64)
        x->as<std::int64_t>()[i] = static_cast<std::int64_t>(value) << 40;
      else if (from == DType::u8 || from == DType::i8)
        x->as<std::int8_t>()[i] = static_cast<std::int8_t>(value);
      else
        put(*x, i, value);
    }
    for (const DType to : {DType::f32, DType::f16, DType::bf16, DType::f64}) {
      auto fn = [&] {
        return Tensors{cast(from_storage(x), to), cast(slice(from_storage(x), 1, 1, 33), to),
                       cast(permute(from_storage(x), {1, 0}), to)};
      };
      const auto got = run(fn, {}, gpu()), want = run(fn, {}, cpu_backend());
      EXPECT_EQ(got, want) << name_of(from) << " to " << name_of(to);
    }
  }
}

}  // namespace
}  // namespace supersonic::testing
