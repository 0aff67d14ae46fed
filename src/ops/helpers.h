// What operations share: filling case lists, broadcasting, zero gradients.
#pragma once
#include "core/op.h"
#include "core/primitives.h"
#include "ops/view.h"

namespace supersonic {

inline CaseInput normal(Shape shape) { return {shape}; }
inline CaseInput positive(Shape shape) { return {shape, CaseInput::positive}; }
inline CaseInput index_input(Shape shape, double end) {
  return {shape, CaseInput::index, 0, end, nullptr, CaseInput::i32};
}
inline CaseInput f32_input(Shape shape) { return {shape, CaseInput::normal, 0, 0, nullptr, CaseInput::f32}; }

}  // namespace supersonic
