// Leaf: the operation of a node that stands for a storage. It runs nothing.
#pragma once
#include "core/op.h"

namespace supersonic {

struct Leaf {
  static void infer(Infer& i) { i.refuse("a leaf is made by from_storage"); }
};
template <>
const Op& op<Leaf>();

}  // namespace supersonic
