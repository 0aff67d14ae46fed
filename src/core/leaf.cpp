#include "core/leaf.h"

namespace supersonic {

template <>
const Op& op<Leaf>() {
  static const Op record = [] {
    Op r;
    r.name = "Leaf";
    r.infer = &Leaf::infer;
    return r;
  }();
  return record;
}

}  // namespace supersonic
