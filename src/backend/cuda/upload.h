// Large copies from ordinary host memory, such as a mapped file, to the device: several threads
// read pieces into page-locked buffers, from which the copy engine takes them. The driver's own way
// reads with one thread: the 4.4 GiB of an 8B model, in the page cache, took 1.14 s, and take 0.48
// s with eight threads.
#pragma once
#include <cuda_runtime_api.h>

#include <cstddef>
#include <vector>

namespace supersonic::cuda {

class Uploader {
 public:
  explicit Uploader(int device) : device_(device) {}
  ~Uploader();
  Uploader(const Uploader&) = delete;
  // Whether a copy of so many bytes is better made here.
  static bool takes(std::size_t bytes) { return bytes >= kLeast; }
  // Returns when the bytes have arrived.
  void copy(void* to, const void* from, std::size_t bytes);

 private:
  static constexpr std::size_t kPiece = std::size_t{2} << 20, kLeast = 2 * kPiece;
  static constexpr int kBuffers = 2;
  // A thread's share: while one buffer is on its way, the other is filled.
  struct Worker {
    cudaStream_t stream = nullptr;
    std::byte* buffers = nullptr;
    cudaEvent_t sent[kBuffers] = {};
  };
  void open();
  cudaError_t work(Worker& w, std::byte* to, const std::byte* from, std::size_t bytes,
                   std::size_t first) const;

  const int device_;
  std::vector<Worker> workers_;
};

}  // namespace supersonic::cuda
