// Turns an operation's struct into its Op record. Included by the generated registration alone.
#pragma once
#include "core/op.h"

namespace supersonic {

template <class T>
concept HasDefine = requires(const T& a, Args in) { T::define(a, in); };
template <class T>
concept HasBackward = requires(const T& a, const BackwardArgs& b) { T::backward(a, b); };
template <class T>
concept HasTraits = requires { T::traits; };
template <class T>
concept HasCases = requires { T::cases(); };
template <class T>
concept HasFold = requires(const FoldArgs& f, FoldNode& out) { T::fold(f, out); };
template <class T>
concept HasLayout = requires(const T& a, const Spec& s, const ViewLayout& f, ViewLayout& t) { T::layout(a, s, f, s, t); };
template <class T>
concept IsMap = requires { T::arity; };

template <class T>
Op make_op(std::string_view name) {
  Op op;
  op.name = name;
  op.infer = &T::infer;
  op.attr_bytes = std::is_empty_v<T> ? 0 : static_cast<int>(sizeof(T));
  op.map = IsMap<T>;
  if constexpr (HasTraits<T>) op.traits = T::traits;
  if constexpr (HasDefine<T>) {
    op.define = [](const Attrs& a, Args in) { return T::define(a.as<T>(), in); };
  }
  if constexpr (HasBackward<T>) {
    op.backward = [](const Attrs& a, const BackwardArgs& b) { return T::backward(a.as<T>(), b); };
  }
  if constexpr (HasCases<T>) op.cases = &T::cases;
  if constexpr (HasLayout<T>) {
    op.layout = [](const Attrs& a, const Spec& in, const ViewLayout& from, const Spec& out, ViewLayout& to) {
      return T::layout(a.as<T>(), in, from, out, to);
    };
  }
  if constexpr (HasFold<T>) op.fold = &T::fold;
  return op;
}

}  // namespace supersonic
