// Norms and rotations on the GPU by whole vectors: rows that lie as plans lay them, of widths that
// one warp holds, that a block holds and that are too wide for it, against fp64 on the CPU. The
// generated tests move their operands off every alignment, so they see the other loops. Skipped
// where no GPU answers.
#include <gtest/gtest.h>

#include "../core/tiny_model.h"
#include "core/device.h"
#include "ops/rope.h"

namespace supersonic::testing {
namespace {

class CudaRows : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string why;
    if (list_gpus(&why).empty()) GTEST_SKIP() << why;
  }
};

std::vector<std::vector<double>> results(Backend& backend, const std::function<Tensors()>& fn,
                                         std::vector<std::string>* kernels = nullptr) {
  Executor executor(backend);
  int count = 0;
  Program program = Program::capture(
      [&] {
        const Tensors out = fn();
        count = static_cast<int>(out.size());
        return out;
      },
      executor, {});
  program.plan().verify();
  program.run();
  for (const Step& s : program.plan().steps())
    if (kernels && s.kernel) kernels->push_back(s.kernel->name);
  std::vector<std::vector<double>> all;
  for (int i = 0; i < count; ++i) {
    const Storage& s = program.result(i);
    std::vector<double> v(static_cast<std::size_t>(s.spec.numel()));
    for (std::size_t k = 0; k < v.size(); ++k) v[k] = get(s, static_cast<std::int64_t>(k));
    all.push_back(v);
  }
  return all;
}

// The same numbers on the GPU and, as fp64, on the CPU.
struct Twin {
  StorageRef there, here;
};
Twin twin(Shape shape, DType type, std::uint64_t seed) {
  const StorageRef s = random_storage({shape, type, nullptr}, seed, 1);
  StorageRef wide = Storage::make({shape, DType::f64, nullptr});
  for (std::int64_t i = 0; i < shape.numel(); ++i) put(*wide, i, get(*s, i));
  return {resident(s, device_backend("cuda")), wide};
}
void expect_near(const std::vector<std::vector<double>>& got,
                 const std::vector<std::vector<double>>& want, DType type,
                 const std::string& what) {
  ASSERT_EQ(got.size(), want.size());
  for (std::size_t i = 0; i < got.size(); ++i)
    EXPECT_LE(relative_error(got[i], want[i]), type == DType::bf16 ? 4e-3 : 2e-6)
        << what << " result " << i;
}

TEST_F(CudaRows, NormsAndTheirGradientsWithAndWithoutWhatGoesPastThem) {
  for (const DType type : {DType::f32, DType::bf16})
    for (const std::int64_t d : {64, 576, 1024, 4096, 8192, 40000})
      for (const bool past : {false, true}) {
        const Twin x = twin({7, d}, type, 1), w = twin({d}, DType::f32, 2),
                   dy = twin({7, d}, type, 3), base = twin({7, d}, type, 4);
        auto fn = [&](bool gpu) {
          auto in = [&](const Twin& t) { return from_storage(gpu ? t.there : t.here); };
          const Tensor y = rms_norm(in(x), in(w), 1e-5f);
          const Tensor wrt[] = {in(x)}, outputs[] = {y}, cotangents[] = {in(dy)};
          const Tensor dx = gradients(outputs, cotangents, wrt)[0];
          return Tensors{y, past ? add(in(base), dx) : dx};
        };
        std::vector<std::string> kernels;
        const auto got = results(
            device_backend("cuda"), [&] { return fn(true); }, &kernels);
        expect_near(got, results(cpu_backend(), [&] { return fn(false); }), type,
                    fmt::format("{} {} {}", name_of(type), d, past));
        EXPECT_EQ(std::count(kernels.begin(), kernels.end(), "cuda.rms_norm_grad_add"), past) << d;
      }
}

TEST_F(CudaRows, RotationsOfEitherPairingForwardAndBack) {
  for (const DType type : {DType::f32, DType::bf16})
    for (const bool interleaved : {false, true})
      for (const std::int64_t d : {16, 64, 128, 256, 20})
        for (const std::int64_t heads : {1, 8, 33}) {
          const Twin x = twin({5, heads, d}, type, 1), dy = twin({5, heads, d}, type, 2);
          const StorageRef positions = Storage::make({Shape{5}, DType::i32, nullptr}),
                           frequencies = Storage::make({Shape{d / 2}, DType::f32, nullptr});
          for (int i = 0; i < 5; ++i) put(*positions, i, 1000 * i + 3);
          for (std::int64_t i = 0; i < d / 2; ++i)
            put(*frequencies, i,
                std::pow(10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(d)));
          auto fn = [&](bool gpu) {
            const Tensor in = from_storage(gpu ? x.there : x.here),
                         g = from_storage(gpu ? dy.there : dy.here);
            const Tensor y =
                rope(in, from_storage(positions), from_storage(frequencies), interleaved, 1.25f);
            const Tensor wrt[] = {in}, outputs[] = {y}, cotangents[] = {g};
            return Tensors{y, gradients(outputs, cotangents, wrt)[0]};
          };
          expect_near(results(device_backend("cuda"), [&] { return fn(true); }),
                      results(cpu_backend(), [&] { return fn(false); }), type,
                      fmt::format("{} {} {} {}", name_of(type), interleaved, d, heads));
        }
}

}  // namespace
}  // namespace supersonic::testing
