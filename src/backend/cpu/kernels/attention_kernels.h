// The table of attention's kernels for one instruction set.
#pragma once
#include "backend/cpu/kernels/attention_backward.h"

namespace supersonic::cpu::SIMD_NAMESPACE {

const AttentionKernels& attention_kernels() {
  static constexpr AttentionKernels table{attention_forward, attention_backward};
  return table;
}

}  // namespace supersonic::cpu::SIMD_NAMESPACE
