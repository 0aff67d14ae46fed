// The CUDA backend, built as a plug-in: one GPU's memory is the compute place, lanes are streams. What its kernels need of it: the
// stream and the limits of the lane that they are launched on, error checks, and the channel by which device code reports that
// an input is impossible. Everything here is in namespace supersonic::cuda, since libsupersonic.so has kernels of the same names.
//
//   KERNEL(rms_norm) { return {.op = &op<RmsNorm>(), .name = "cuda.rms_norm", .launch = [](const Problem& p, const Pointers& ptr, Lane& lane) {
//     rms_norm_forward({...}, stream_of(lane)); }}; }          // kernels/rms_norm.h, launched in kernels/rms_norm.cu
#pragma once
#include <cuda_runtime_api.h>

#include "backend/cuda/kernels/device.h"
#include "core/backend.h"

namespace supersonic::cuda {

struct CudaLane : Lane {
  cudaStream_t stream = nullptr;
  const DeviceLimits* limits = nullptr;
  FaultSink faults;
};
inline cudaStream_t stream_of(Lane& lane) { return static_cast<CudaLane&>(lane).stream; }
inline const DeviceLimits& limits_of(Lane& lane) { return *static_cast<CudaLane&>(lane).limits; }
// Where a kernel on this lane reports an index that lies outside (kernels/fault.h); sync() throws what it says.
inline FaultSink faults_of(Lane& lane) { return static_cast<CudaLane&>(lane).faults; }
}  // namespace supersonic::cuda
