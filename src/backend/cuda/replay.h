// A plan as a CUDA graph. Everything that its steps put on the lanes is recorded once, lanes and
// events included, and launched whole. Storages in ordinary host memory (a program's small inputs
// and results) pass through page-locked staging: filled before a launch, emptied after it, since a
// graph copies from fixed addresses at a time of its own.
#pragma once
#include <cuda_runtime_api.h>

#include <map>
#include <memory>
#include <vector>

#include "core/plan.h"

namespace supersonic::cuda {

// The staging of one plan's host storages.
class Staging {
 public:
  ~Staging();
  // False: too much to pass through memory twice (streamed weights); such a plan is run by looping.
  bool prepare(const Plan& plan);
  void* at(const void* host) const;  // null: not staged
  bool unused() const { return pieces_.empty(); }
  void fill() const;   // host -> staging, for what the plan reads
  void empty() const;  // staging -> host, for what it writes

 private:
  struct Piece {
    void* staged;
    std::size_t bytes;
    bool read = false, written = false;
  };
  void add(const Plan& plan, const Location& at, bool written);
  std::map<void*, Piece> pieces_;  // by host address
  std::byte* memory_ = nullptr;
};

}  // namespace supersonic::cuda
