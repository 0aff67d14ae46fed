// The view operations: metadata only. A plan resolves them to an offset and strides over their base; backward of a slice is a
// pad, of an expansion a sum.
#pragma once
#include "core/op.h"
#include "core/primitives.h"

namespace supersonic {

Tensor reshape(const Tensor& x, const Shape& shape, Where where = Where::current());  // one dim may be -1
Tensor permute(const Tensor& x, std::initializer_list<int> order, Where where = Where::current());
Tensor transpose_last(const Tensor& x, Where where = Where::current());
Tensor slice(const Tensor& x, int axis, std::int64_t begin, std::int64_t end, Where where = Where::current());
Tensor expand(const Tensor& x, const Shape& shape, Where where = Where::current());  // size-1 dims repeat; leading dims added
Tensor pad(const Tensor& x, int axis, std::int64_t before, std::int64_t after, Where where = Where::current());
Tensor sum(const Tensor& x, int axis, Where where = Where::current());  // keeps the axis with size 1

struct Dims {  // a shape inside attributes: unused entries are -1
  std::int64_t d[kMaxRank];
  static Dims of(const Shape& s) {
    Dims dims;
    for (int i = 0; i < kMaxRank; ++i) dims.d[i] = i < s.rank ? s[i] : -1;
    return dims;
  }
  Shape shape() const {
    Shape s;
    while (s.rank < kMaxRank && d[s.rank] >= 0) {
      s.dims[s.rank] = d[s.rank];
      ++s.rank;
    }
    return s;
  }
};

struct Identity {
  static void infer(Infer& i) {
    i.inputs(1);
    i.output(i.shape(0), i.spec(0).dtype, i.spec(0).format);
  }
  static Grads backward(const Identity&, const BackwardArgs& b) { return {b.dy[0]}; }
  static bool layout(const Identity&, const Spec&, const ViewLayout& from, const Spec&, ViewLayout& to) {
    to = from;
    return true;
  }
  static constexpr Traits traits{.view = true};
};
OP(Identity);

struct Reshape {
  Dims dims;
  static void infer(Infer& i) {
    i.inputs(1);
    const Shape shape = i.attrs.as<Reshape>().dims.shape();
    i.check(shape.numel() == i.shape(0).numel(), "cannot reshape to {}", to_string(shape));
    i.check(!i.spec(0).format, "a quantized matrix keeps its shape");
    i.output(shape, i.spec(0).dtype);
  }
  static Grads backward(const Reshape&, const BackwardArgs& b) { return {reshape(b.dy[0], b.in[0].shape())}; }
  // Splits and merges dimensions whose strides allow it; otherwise asks for a copy.
  static bool layout(const Reshape&, const Spec& in, const ViewLayout& from, const Spec& out, ViewLayout& to) {
    to.offset = from.offset;
    int a = 0, b = 0;  // next input, next output dimension
    while (a < in.shape.rank || b < out.shape.rank) {
      std::int64_t left = a < in.shape.rank ? in.shape[a] : 1, right = b < out.shape.rank ? out.shape[b] : 1;
      const int a0 = a++, b0 = b++;
      while (left != right) {
        if (left < right) {
          if (a >= in.shape.rank) return false;
          left *= in.shape[a++];
        } else {
          if (b >= out.shape.rank) return false;
          right *= out.shape[b++];
        }
      }
      while (a < in.shape.rank && in.shape[a] == 1) ++a;
      while (b < out.shape.rank && out.shape[b] == 1) to.strides[b++] = 1;
      std::int64_t stride = 1;
      int last = std::min(a, in.shape.rank) - 1;  // the group must be dense within itself
      while (last >= a0 && in.shape[last] == 1) --last;
      if (last >= a0) {
        stride = from.strides[last];
        std::int64_t expect = stride;
        for (int k = last; k >= a0; --k) {
          if (in.shape[k] == 1) continue;
          if (from.strides[k] != expect) return false;
          expect *= in.shape[k];
        }
      }
      for (int k = std::min(b, out.shape.rank) - 1; k >= b0; --k) {
        to.strides[k] = stride;
        stride *= out.shape[k];
      }
    }
    return true;
  }
  static constexpr Traits traits{.view = true};
};
OP(Reshape);

struct Permute {
  Dims order;
  static void infer(Infer& i) {
    i.inputs(1);
    const Shape order = i.attrs.as<Permute>().order.shape();
    i.check(order.rank == i.shape(0).rank, "needs one index per dimension");
    Shape shape = i.shape(0);
    unsigned seen = 0;
    for (int k = 0; k < order.rank; ++k) {
      i.check(order[k] < order.rank && !(seen >> order[k] & 1), "not a permutation");
      seen |= 1u << order[k];
      shape[k] = i.shape(0)[static_cast<int>(order[k])];
    }
    i.output(shape, i.spec(0).dtype);
  }
  static Grads backward(const Permute& a, const BackwardArgs& b);
  static bool layout(const Permute& a, const Spec& in, const ViewLayout& from, const Spec&, ViewLayout& to) {
    to.offset = from.offset;
    for (int k = 0; k < in.shape.rank; ++k) to.strides[k] = from.strides[a.order.d[k]];
    return true;
  }
  static constexpr Traits traits{.view = true};
};
OP(Permute);

struct Slice {
  std::int64_t axis, begin, end;
  static void infer(Infer& i) {
    i.inputs(1);
    const auto a = i.attrs.as<Slice>();
    Shape shape = i.shape(0);
    i.check(a.axis >= 0 && a.axis < shape.rank, "no axis {}", a.axis);
    i.check(0 <= a.begin && a.begin <= a.end && a.end <= shape[static_cast<int>(a.axis)], "range [{}, {}) is outside", a.begin, a.end);
    const Format* format = i.spec(0).format;  // then only the first rows, whose planes begin where those of all do
    i.check(!format || (a.axis == 0 && a.begin == 0 && format->planes == 1), "of a quantized tensor only the first rows are a view");
    shape[static_cast<int>(a.axis)] = a.end - a.begin;
    i.output(shape, i.spec(0).dtype, format);
  }
  static Grads backward(const Slice& a, const BackwardArgs& b) {
    const int axis = static_cast<int>(a.axis);
    return {pad(b.dy[0], axis, a.begin, b.in[0].dim(axis) - a.end)};
  }
  static bool layout(const Slice& a, const Spec&, const ViewLayout& from, const Spec&, ViewLayout& to) {
    to = from;
    to.offset += a.begin * from.strides[a.axis];
    return true;
  }
  static constexpr Traits traits{.view = true};
};
OP(Slice);

struct Expand {
  Dims dims;
  static void infer(Infer& i) {
    i.inputs(1);
    const Shape shape = i.attrs.as<Expand>().dims.shape();
    i.check(shape.rank == i.shape(0).rank, "keeps the rank");
    for (int k = 0; k < shape.rank; ++k)
      i.check(i.shape(0)[k] == shape[k] || i.shape(0)[k] == 1, "cannot expand to {}", to_string(shape));
    i.output(shape, i.spec(0).dtype);
  }
  static Grads backward(const Expand&, const BackwardArgs& b) {
    Tensor g = b.dy[0];
    for (int k = 0; k < g.rank(); ++k)
      if (b.in[0].dim(k) != g.dim(k)) g = sum(g, k);
    return {g};
  }
  static bool layout(const Expand&, const Spec& in, const ViewLayout& from, const Spec& out, ViewLayout& to) {
    to = from;
    for (int k = 0; k < in.shape.rank; ++k)
      if (in.shape[k] != out.shape[k]) to.strides[k] = 0;
    return true;
  }
  static constexpr Traits traits{.view = true};
};
OP(Expand);

}  // namespace supersonic
