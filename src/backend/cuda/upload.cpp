#include "backend/cuda/upload.h"

#include <algorithm>
#include <cstring>
#include <thread>

#include "backend/cuda/cuda_backend.h"
#include "core/machine.h"

namespace supersonic::cuda {
namespace {

constexpr int kMostThreads = 8;

int thread_count() { return std::clamp(usable_threads(), 1, kMostThreads); }

}  // namespace

Uploader::~Uploader() {
  for (Worker& w : workers_) {
    for (cudaEvent_t e : w.sent)
      if (e) cudaEventDestroy(e);
    if (w.buffers) cudaFreeHost(w.buffers);
    if (w.stream) cudaStreamDestroy(w.stream);
  }
}

void Uploader::open() {
  if (!workers_.empty()) return;
  workers_.resize(static_cast<std::size_t>(thread_count()));
  for (Worker& w : workers_) {
    check(cudaStreamCreateWithFlags(&w.stream, cudaStreamNonBlocking), "cudaStreamCreate");
    check(cudaHostAlloc(reinterpret_cast<void**>(&w.buffers), kBuffers * kPiece,
                        cudaHostAllocPortable),
          "page-locking host memory");
    for (cudaEvent_t& e : w.sent)
      check(cudaEventCreateWithFlags(&e, cudaEventDisableTiming), "cudaEventCreate");
  }
}

// Every piece whose number is `first` and a multiple of the workers beyond.
cudaError_t Uploader::work(Worker& w, std::byte* to, const std::byte* from, std::size_t bytes,
                           std::size_t first) const {
  cudaError_t status = cudaSetDevice(device_);
  int turn = 0;
  for (std::size_t at = first * kPiece; at < bytes && status == cudaSuccess;
       at += workers_.size() * kPiece, turn = (turn + 1) % kBuffers) {
    const std::size_t n = std::min(kPiece, bytes - at);
    std::byte* const buffer = w.buffers + static_cast<std::size_t>(turn) * kPiece;
    status = cudaEventSynchronize(w.sent[turn]);  // an event that was never recorded is done
    std::memcpy(buffer, from + at, n);
    if (status == cudaSuccess)
      status = cudaMemcpyAsync(to + at, buffer, n, cudaMemcpyHostToDevice, w.stream);
    if (status == cudaSuccess) status = cudaEventRecord(w.sent[turn], w.stream);
  }
  const cudaError_t end = cudaStreamSynchronize(w.stream);
  return status == cudaSuccess ? end : status;
}

void Uploader::copy(void* to, const void* from, std::size_t bytes) {
  open();
  std::vector<cudaError_t> status(workers_.size(), cudaSuccess);
  std::vector<std::jthread> threads;
  for (std::size_t i = 0; i < workers_.size(); ++i)
    threads.emplace_back([&, i] {
      status[i] = work(workers_[i], static_cast<std::byte*>(to),
                       static_cast<const std::byte*>(from), bytes, i);
    });
  threads.clear();  // joins
  for (cudaError_t s : status) check(s, "copying to the device");
}

}  // namespace supersonic::cuda
