// The elementwise work of the hand-written step as calls: plain loops on a CPU (elementwise.h), on
// other backends the chains of their catalogue.
#pragma once
#include "hand_step/calls.h"

namespace supersonic::bench {

struct Maps {
  Map add;              // a, b -> a + b
  Map swiglu;           // gate, up -> y = gate * sigmoid(gate) * up
  Map swiglu_backward;  // gate, up, dy -> y, and the gradients of gate and up
};
Maps maps_of(Backend& backend);

}  // namespace supersonic::bench
