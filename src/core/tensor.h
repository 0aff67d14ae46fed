// Tensor and Node: a Tensor is a 16-byte handle to one output of a recorded Node. A node is plain data: the operation, its
// attributes (at most 48 bytes), its inputs, what its outputs look like, and the line of the program that recorded it.
#pragma once
#include <cstdint>
#include <cstring>
#include <source_location>
#include <span>
#include <vector>

#include "core/storage.h"

namespace supersonic {

struct Op;
struct Node;
using Where = std::source_location;

constexpr int kMaxInputs = 16, kMaxOutputs = 4, kMaxAttrBytes = 48;

class Tensor {
 public:
  Tensor() = default;
  Tensor(Ref<Node> node, int output) : node_(std::move(node)), output_(output) {}
  Node* node() const { return node_.get(); }
  int output() const { return output_; }
  explicit operator bool() const { return static_cast<bool>(node_); }
  bool operator==(const Tensor&) const = default;

  const Spec& spec() const;
  const Shape& shape() const { return spec().shape; }
  std::int64_t dim(int i) const { return spec().shape[i]; }
  int rank() const { return spec().shape.rank; }
  DType dtype() const { return spec().dtype; }
  std::int64_t numel() const { return spec().numel(); }

 private:
  Ref<Node> node_;
  int output_ = 0;
};
using Tensors = std::vector<Tensor>;

struct Attrs {
  alignas(8) std::byte bytes[kMaxAttrBytes] = {};
  template <class A>
  static Attrs of(const A& a) {
    static_assert(sizeof(A) <= kMaxAttrBytes && std::is_trivially_copyable_v<A>);
    Attrs out;
    if constexpr (!std::is_empty_v<A>) std::memcpy(out.bytes, &a, sizeof(A));
    return out;
  }
  template <class A>
  const A& as() const { return *reinterpret_cast<const A*>(bytes); }
};

struct Node {
  int refs = 0;
  std::uint16_t num_inputs = 0, num_outputs = 0;
  std::uint32_t region = 0;  // checkpoint region, 0: none; of a backward node: that of the node it differentiates
  bool backward = false;     // recorded by a gradient sweep
  const Op* op = nullptr;
  std::uint64_t seq = 0;
  Attrs attrs;
  Tensor inputs[kMaxInputs];
  Spec outputs[kMaxOutputs];
  StorageRef storage[kMaxOutputs];  // set on a leaf, and on what an evaluation has materialised
  Where where;

  static Node* create();
  static void destroy(Node* n);
};

inline const Spec& Tensor::spec() const { return node_->outputs[output_]; }

}  // namespace supersonic
