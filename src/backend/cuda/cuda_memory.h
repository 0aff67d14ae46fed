// Memory of the CUDA backend: arenas that grow at a fixed address (device memory through the
// driver's virtual addresses, host memory page-locked, so that copies run beside kernels) and
// storages.
#pragma once
#include <memory>

#include "core/backend.h"

namespace supersonic::cuda {

std::unique_ptr<Arena> device_arena(int device);
std::unique_ptr<Arena> locked_host_arena();
// Zero-filled device memory with every plane at a multiple of 256 bytes.
StorageRef device_storage(int device, const Spec& spec, std::string name);
// Zero-filled page-locked host memory for a dense tensor.
StorageRef locked_storage(const Spec& spec, std::string name);

}  // namespace supersonic::cuda
