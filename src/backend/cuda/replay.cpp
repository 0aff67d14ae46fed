#include "backend/cuda/replay.h"

#include <cstring>

#include "backend/cuda/cuda_backend.h"
#include "core/planes.h"

namespace supersonic::cuda {
namespace {

constexpr std::size_t kMostStaged = std::size_t{16} << 20, kAlign = 256;
std::size_t rounded(std::size_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }

}  // namespace

Staging::~Staging() {
  if (memory_) cudaFreeHost(memory_);
}

void Staging::add(const Plan& plan, const Location& at, bool written) {
  if (at.kind != Location::storage || at.place.kind != Place::host) return;
  const Storage& s = *plan.storages()[at.index];
  const Format* f = s.spec.format;
  for (int p = 0; p < (f ? f->planes : 1); ++p) {
    const std::size_t bytes = f ? plane_bytes(s.spec, p) : s.bytes;
    if (!bytes) continue;
    Piece& piece = pieces_.try_emplace(const_cast<void*>(s.planes.data[p]), Piece{nullptr, bytes})
                       .first->second;
    (written ? piece.written : piece.read) = true;
  }
}

bool Staging::prepare(const Plan& plan) {
  for (const Step& s : plan.steps()) {
    if (!s.copy) continue;
    add(plan, s.in[0], false);
    add(plan, s.out[0], true);
  }
  std::size_t total = 0;
  for (const auto& [host, piece] : pieces_) total += rounded(piece.bytes);
  if (total > kMostStaged) return false;
  if (!total) return true;
  void* memory = nullptr;
  check(cudaHostAlloc(&memory, total, cudaHostAllocPortable), "page-locking host memory");
  memory_ = static_cast<std::byte*>(memory);
  std::byte* next = memory_;
  for (auto& [host, piece] : pieces_) {
    piece.staged = next;
    next += rounded(piece.bytes);
  }
  return true;
}

void* Staging::at(const void* host) const {
  const auto it = pieces_.find(const_cast<void*>(host));
  return it == pieces_.end() ? nullptr : it->second.staged;
}

void Staging::fill() const {
  for (const auto& [host, piece] : pieces_)
    if (piece.read) std::memcpy(piece.staged, host, piece.bytes);
}

// A copy writes its storage whole, so nothing of what was there before is needed.
void Staging::empty() const {
  for (const auto& [host, piece] : pieces_)
    if (piece.written) std::memcpy(host, piece.staged, piece.bytes);
}

}  // namespace supersonic::cuda
