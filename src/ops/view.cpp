#include "ops/view.h"

#include "ops/helpers.h"

namespace supersonic {

Tensor identity(const Tensor& x, Where where) { return record1(Identity{}, {x}, where); }

Tensor reshape(const Tensor& x, const Shape& shape, Where where) {
  Shape s = shape;
  std::int64_t known = 1;
  int open = -1;
  for (int i = 0; i < s.rank; ++i) {
    if (s[i] == -1) open = i;
    else known *= s[i];
  }
  if (open >= 0 && known) s[open] = x.numel() / known;
  if (s == x.shape()) return x;
  return record1(Reshape{Dims::of(s)}, {x}, where);
}

Tensor permute(const Tensor& x, std::initializer_list<int> order, Where where) {
  Shape s;
  for (int o : order) s.dims[s.rank++] = o;
  return record1(Permute{Dims::of(s)}, {x}, where);
}

Tensor transpose_last(const Tensor& x, Where where) {
  Shape s;
  s.rank = x.rank();
  for (int i = 0; i < s.rank; ++i) s[i] = i;
  std::swap(s[-1], s[-2]);
  return record1(Permute{Dims::of(s)}, {x}, where);
}

Grads Permute::backward(const Permute& a, const BackwardArgs& b) {
  Shape inverse;
  inverse.rank = b.in[0].rank();
  for (int k = 0; k < inverse.rank; ++k) inverse[static_cast<int>(a.order.d[k])] = k;
  return {record1(Permute{Dims::of(inverse)}, {b.dy[0]}, Where::current())};
}

Tensor slice(const Tensor& x, int axis, std::int64_t begin, std::int64_t end, Where where) {
  if (axis < 0) axis += x.rank();
  if (begin == 0 && end == x.dim(axis)) return x;
  return record1(Slice{axis, begin, end}, {x}, where);
}

Tensor expand(const Tensor& x, const Shape& shape, Where where) {
  if (x.shape() == shape) return x;
  Tensor y = x;
  if (x.rank() < shape.rank) {  // leading dimensions of size 1
    Shape s;
    s.rank = shape.rank;
    for (int i = 0; i < s.rank; ++i) s[i] = i < shape.rank - x.rank() ? 1 : x.dim(i - (shape.rank - x.rank()));
    y = reshape(x, s, where);
    if (y.shape() == shape) return y;
  }
  return record1(Expand{Dims::of(shape)}, {y}, where);
}

}  // namespace supersonic
