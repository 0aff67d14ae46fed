// Kernel: one implementation of an operation on one backend. A kernel is chosen while a plan is built; it says why it will not
// take a problem, how much workspace it needs and in which prepared form it wants an operand. It never allocates.
#pragma once
#include <array>
#include <span>

#include "core/chain.h"
#include "core/compute.h"
#include "core/op.h"

namespace supersonic {

struct Form;
struct Problem;

struct Operand {
  Spec spec;
  Strides strides{};
  bool live = true;            // outputs: somebody reads it; a dead output's pointer is null
  const Form* form = nullptr;  // inputs: the prepared form in which the data arrives, null: as described by spec
  bool contiguous() const;
};

// A form in which kernels want an operand (int8 rows with scales, say). The planner makes each form once for all readers.
struct Form {
  const char* name;
  std::size_t (*bytes)(const Spec& source);
  void (*make)(const Operand& source, const void* data, void* out, struct Lane& lane);
};

struct Problem {
  const Op* op = nullptr;
  Attrs attrs;
  std::vector<Operand> in, out;
  const ChainProgram* chain = nullptr;
  Compute compute = Compute::fp32;
  int threads = 1;
  template <class A>
  const A& attr() const { return attrs.as<A>(); }
};

struct Pointers {
  void* in[kMaxInputs] = {};             // dense data or prepared form; effects write through these
  const Planes* planes[kMaxInputs] = {};  // quantized matrices
  void* out[kMaxOutputs] = {};           // null: dead
  void* workspace = nullptr;
};

struct Kernel {
  const Op* op = nullptr;  // null: the chain kernel
  const char* name = "";   // stable: shows in explain() and keys the tuning cache
  const char* (*reject)(const Problem&) = nullptr;          // null result: takes it
  std::size_t (*workspace)(const Problem&) = nullptr;       // bytes
  const Form* (*form)(const Problem&, int input) = nullptr;  // null result: as it is
  void (*launch)(const Problem&, const Pointers&, struct Lane&) = nullptr;
  bool strided = false;  // takes any strides; else the planner makes operands contiguous
  unsigned always = 0;   // bit o: output o is written even when nobody reads it, so it gets memory for the step
  int priority = 0;      // higher is tried first
};

}  // namespace supersonic

// Declares a backend's kernel; the build finds the mark and generates the list.
//   KERNEL(rms_norm) { return {.op = &op<RmsNorm>(), .name = "cpu.rms_norm", ...}; }
#define KERNEL(symbol)                            \
  static Kernel symbol##_make();                  \
  const Kernel& symbol##_kernel();                \
  const Kernel& symbol##_kernel() {               \
    static const Kernel record = symbol##_make(); \
    return record;                                \
  }                                               \
  static Kernel symbol##_make()
