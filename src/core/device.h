// Devices: which backend a run uses, and what GPUs this machine has. The GPU backend is a plug-in
// beside libsupersonic.so, opened the first time that somebody asks for a GPU, so that nothing else
// pays for it at start-up.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "core/backend.h"

namespace supersonic {

// One GPU as its driver describes it. Plain data: it crosses the plug-in's C interface.
struct GpuInfo {
  char name[256] = {};
  std::uint64_t total_bytes = 0, free_bytes = 0;
  std::int32_t capability_major = 0, capability_minor = 0;
  std::int32_t multiprocessors = 0;
  std::int32_t cuda_version = 0;  // what the driver implements: 13000 is CUDA 13.0
};

// The GPUs that a plan could run on; none: *why says what is missing and what would bring it.
std::vector<GpuInfo> list_gpus(std::string* why = nullptr);
std::string
driver_release();  // of NVIDIA's kernel module, such as "580.159.04"; empty where there is none

// "cpu", "cuda", "cuda:1", or "auto": the first GPU where there is one that works, else the CPU.
// The backend lives as long as the process. Throws Error(usage) for another name, Error with the
// remedy where the plug-in, the driver or the GPU is missing.
Backend& device_backend(std::string_view device);

// Memory that is free where the backend's kernels work.
std::uint64_t free_bytes(Backend& backend);

// What a run takes of the memory where the backend's kernels work. On a CPU the process's peak; on
// a GPU what is gone since this was made, beside a bare context: what others take meanwhile counts.
class TakenMemory {
 public:
  explicit TakenMemory(Backend& backend);
  std::uint64_t bytes() const;

 private:
  Backend& backend_;
  std::uint64_t free_before_ = 0;
};

// Reads `from`'s contents into `to`, of the same spec, wherever each of them lies in host memory or
// `backend`'s; returns when done.
void copy_contents(const Storage& to, const Storage& from, Backend& backend);
// A copy of the storage where the backend's kernels read it in place; the storage itself where it
// already lies there.
StorageRef resident(const StorageRef& storage, Backend& backend);

}  // namespace supersonic
