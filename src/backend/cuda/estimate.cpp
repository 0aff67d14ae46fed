// How long a step should take on this GPU, by its arithmetic and its bytes: what the policy loop
// weighs recomputation and copies with. Shares of the peaks are what the kernels reach
// (docs/gpu.md); nothing is timed.
#include "backend/cuda/estimate.h"

#include <cuda_runtime_api.h>

#include "backend/cuda/cuda_backend.h"
#include "ops/attention.h"
#include "ops/gemm.h"
#include "ops/linear_xent.h"

namespace supersonic::cuda {
namespace {

constexpr double kLaunch = 4e-6;  // seconds
constexpr double kProductShare = 0.65, kAttentionShare = 0.55, kMemoryShare = 0.8, kLinkShare = 0.8;

double attribute(cudaDeviceAttr which, int device) {
  int value = 0;
  check(cudaDeviceGetAttribute(&value, which, device), "cudaDeviceGetAttribute");
  return value;
}

// Dense bf16 multiply-adds of one multiprocessor in a clock, accumulated in fp32.
double multiply_adds(int capability) {
  if (capability == 90 || capability == 100 || capability == 103)
    return 2048 * (capability == 90 ? 1 : 2);
  if (capability == 80) return 1024;
  return capability >= 86 ? 512 : 64;  // Turing computes in fp32
}

double bytes_moved(const Problem& p) {
  double bytes = 0;
  for (const Operand& o : p.in) bytes += static_cast<double>(bytes_of(o.spec));
  for (const Operand& o : p.out) bytes += o.live ? static_cast<double>(bytes_of(o.spec)) : 0;
  return bytes;
}

double product_work(const Problem& p, int first, const Gemm& a) {
  double work = 0;
  for (std::size_t i = first; i + 1 < p.in.size(); i += 2) {
    const Shape& w = p.in[i + 1].spec.shape;
    const Shape& x = p.in[i].spec.shape;
    const bool turned = a.trans_x >> ((i - first) / 2) & 1;
    work += 2.0 * static_cast<double>(turned ? x[1] : x[0]) * static_cast<double>(w.numel());
  }
  return work;
}

// Half of all pairs of a query and a key: as if all rows were one causal sequence.
double attention_work(const Problem& p, double products) {
  const Shape &q = p.in[0].spec.shape, &k = p.in[1].spec.shape;
  return products * static_cast<double>(q.numel()) * static_cast<double>(k[0]);
}

}  // namespace

Estimates read_estimates(int device) {
  Estimates e;
  const int capability =
      static_cast<int>(attribute(cudaDevAttrComputeCapabilityMajor, device) * 10 +
                       attribute(cudaDevAttrComputeCapabilityMinor, device));
  const double clock = attribute(cudaDevAttrClockRate, device) * 1e3,
               units = attribute(cudaDevAttrMultiProcessorCount, device);
  e.multiply = units * clock * 2 * multiply_adds(capability);
  e.multiply_f32 = units * clock * 2 * 64;
  e.memory = attribute(cudaDevAttrMemoryClockRate, device) * 1e3 * 2 *
             attribute(cudaDevAttrGlobalMemoryBusWidth, device) / 8;
  e.link = capability >= 90 ? 64e9 : capability >= 80 ? 32e9 : 16e9;  // PCIe 5, 4, 3 with 16 lanes
  return e;
}

double Estimates::seconds(const Problem& p) const {
  const bool narrow = p.compute == Compute::fp8 && !p.chain && p.op == &op<Gemm>() &&
                      p.in[1].spec.format;  // E4M3 goes twice as fast as bf16
  const double rate = p.compute == Compute::fp32 ? multiply_f32 : narrow ? 2 * multiply : multiply;
  double work = 0, share = kProductShare;
  if (!p.chain && p.op == &op<Gemm>()) work = product_work(p, 0, p.attr<Gemm>());
  if (!p.chain && p.op == &op<GemmAccumulate>())
    work = product_work(p, 1, p.attr<GemmAccumulate>().gemm);
  if (!p.chain && p.op == &op<LinearXent>())
    work = 4.0 * static_cast<double>(p.in[0].spec.shape[0]) *
           static_cast<double>(p.in[1].spec.numel());
  if (!p.chain && p.op == &op<LinearXentWeightGradAccumulate>())
    work = 4.0 * static_cast<double>(p.in[1].spec.shape[0]) *
           static_cast<double>(p.in[2].spec.numel());
  if (!p.chain && p.op == &op<Attention>()) work = attention_work(p, 2), share = kAttentionShare;
  if (!p.chain && p.op == &op<AttentionGrad>())
    work = attention_work(p, 7), share = kAttentionShare;
  return kLaunch + work / (rate * share) + bytes_moved(p) / (memory * kMemoryShare);
}

double Estimates::copy_seconds(std::size_t bytes) const {
  return static_cast<double>(bytes) / (link * kLinkShare);
}

}  // namespace supersonic::cuda
