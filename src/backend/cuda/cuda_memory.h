// Memory of the CUDA backend: arenas that grow at a fixed address (device memory through the
// driver's virtual addresses, host memory page-locked, so that copies run beside kernels) and
// storages.
#pragma once
#include <memory>
#include <mutex>

#include "core/backend.h"

namespace supersonic::cuda {

std::unique_ptr<Arena> device_arena(int device);
std::unique_ptr<Arena> locked_host_arena();

// Device memory of storages, one beside the other.
class StoragePool {
 public:
  explicit StoragePool(int device);
  ~StoragePool();
  int device() const { return device_; }
  std::byte* take(std::size_t bytes,
                  const std::string& name);  // name: of what needs it, for the error
  void give(std::byte* data, std::size_t bytes);

 private:
  struct Pages;
  const int device_;
  std::mutex mutex_;
  std::unique_ptr<Pages> pages_;
};

// Zero-filled device memory with every plane at a multiple of 256 bytes. The pool outlives it.
StorageRef device_storage(StoragePool& pool, const Spec& spec, std::string name);

// A copy of the storage in page-locked memory, and that copy as kernels of the device read it.
StorageRef locked_copy(const StorageRef& from);
StorageRef seen_from_device(int device, const StorageRef& locked);

// Zero-filled page-locked host memory for a dense tensor.
StorageRef locked_storage(const Spec& spec, std::string name);

}  // namespace supersonic::cuda
