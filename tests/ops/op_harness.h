// The generated operation tests: inputs made from an operation's cases, kernels run on poisoned memory through verified plans.
#pragma once
#include <cmath>
#include <cstring>
#include <map>
#include <vector>

#include "core/autograd.h"
#include "core/executor.h"
#include "support/device.h"
#include "support/scales.h"
#include "ops/map/arithmetic.h"
#include "ops/reduce.h"

namespace supersonic::testing {

// Counter-based uniform numbers in [0, 1): the same inputs on every machine.
inline double uniform(std::uint64_t seed, std::uint64_t i) {
  std::uint64_t z = seed * 0x9e3779b97f4a7c15ull + i * 0xbf58476d1ce4e5b9ull + 0x94d049bb133111ebull;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return static_cast<double>((z ^ (z >> 31)) >> 11) * 0x1p-53;
}
inline double gaussian(std::uint64_t seed, std::uint64_t i) {
  return std::sqrt(-2 * std::log(1 - uniform(seed, 2 * i))) * std::cos(6.283185307179586 * uniform(seed, 2 * i + 1));
}

inline void put(const Storage& s, std::int64_t i, double x) {
  void* p = s.as<void>();
  switch (s.spec.dtype) {
    case DType::f32: static_cast<float*>(p)[i] = static_cast<float>(x); break;
    case DType::bf16: static_cast<bf16*>(p)[i] = bf16(static_cast<float>(x)); break;
    case DType::f16: static_cast<f16*>(p)[i] = f16(static_cast<float>(x)); break;
    case DType::f64: static_cast<double*>(p)[i] = x; break;
    case DType::i32: static_cast<std::int32_t*>(p)[i] = static_cast<std::int32_t>(x); break;
    default: FAIL() << "dtype";
  }
}
inline double get(const Storage& s, std::int64_t i) {
  const void* p = s.as<void>();
  switch (s.spec.dtype) {
    case DType::f32: return static_cast<const float*>(p)[i];
    case DType::bf16: return static_cast<float>(static_cast<const bf16*>(p)[i]);
    case DType::f16: return static_cast<float>(static_cast<const f16*>(p)[i]);
    case DType::f64: return static_cast<const double*>(p)[i];
    case DType::i32: return static_cast<const std::int32_t*>(p)[i];
    default: ADD_FAILURE() << "dtype"; return 0;
  }
}

// A storage whose data starts one element off every alignment, with poison around it.
inline StorageRef misaligned(const Spec& spec) {
  if (spec.format) return Storage::make(spec, "weights");
  const std::size_t bytes = bytes_of(spec), shift = size_of(spec.dtype);
  auto* block = new std::vector<std::byte>(bytes + 128 + shift, std::byte{0xff});
  auto* data = block->data() + (64 - reinterpret_cast<std::uintptr_t>(block->data()) % 64) + shift;
  return Storage::external(spec, Planes{{data}}, "input", [block] { delete block; });
}

inline void fill_quantized(const Storage& s, std::uint64_t seed) {
  const Format& f = *s.spec.format;
  const std::int64_t cols = s.spec.shape[-1], rows = s.spec.numel() / cols;
  if (f.encode) {
    std::vector<float> w(rows * cols);
    for (std::size_t i = 0; i < w.size(); ++i) w[i] = static_cast<float>(gaussian(seed, i) * 0.2);
    void* planes[kMaxPlanes];
    for (int p = 0; p < kMaxPlanes; ++p) planes[p] = const_cast<void*>(s.planes.data[p]);
    f.encode(w.data(), rows, cols, planes);
    return;
  }
  // Read-only formats: any codes, with scales of a sensible size.
  auto* bytes = s.as<std::uint8_t>();
  for (std::size_t i = 0; i < s.bytes; ++i) bytes[i] = static_cast<std::uint8_t>(uniform(seed, i) * 256);
  for (std::size_t block = 0; block * f.block_bytes < s.bytes; ++block)
    set_scale(f, bytes + block * f.block_bytes, static_cast<float>(0.002 + 0.004 * uniform(seed + 1, block)));
}

inline StorageRef make_input(const CaseInput& in, DType data, std::uint64_t seed) {
  Spec spec{in.shape, in.kind == CaseInput::i32 ? DType::i32 : in.kind == CaseInput::f32 ? DType::f32 : data, nullptr};
  if (in.format) {
    spec.format = find_format(in.format);
    spec.dtype = DType::quant;
  }
  StorageRef s = misaligned(spec);
  if (spec.format) {
    fill_quantized(*s, seed);
    return s;
  }
  const auto segment = static_cast<std::int64_t>(in.a);
  for (std::int64_t i = 0; i < spec.numel(); ++i) {
    double x = 0;
    switch (in.fill) {
      case CaseInput::normal: x = gaussian(seed, i); break;
      case CaseInput::positive: x = 0.2 + uniform(seed, i); break;
      case CaseInput::index: x = std::floor(in.a + uniform(seed, i) * (in.b - in.a)); break;
      case CaseInput::low: x = static_cast<double>(i / segment * segment); break;
      case CaseInput::high: x = i % 11 == 10 ? -1.0 : static_cast<double>(i); break;  // now and then a row that sees nothing
      case CaseInput::constant: x = in.a; break;
      case CaseInput::line: x = in.a + in.b * static_cast<double>(i); break;
    }
    put(*s, i, x);
  }
  return s;
}

// The same values in fp64 (whole numbers and quantized matrices as they are).
inline StorageRef widened(const StorageRef& s) {
  if (s->spec.format || !is_float(s->spec.dtype)) return s;
  StorageRef w = Storage::make({s->spec.shape, DType::f64, nullptr});
  for (std::int64_t i = 0; i < s->spec.numel(); ++i) put(*w, i, get(*s, i));
  return w;
}

// One for all tests of a backend, which lives as long as the process: an emulator's records grow with every arena that is reserved.
inline Executor& executor_of(Backend& backend) {
  static std::map<Backend*, Executor> executors;
  return executors.try_emplace(&backend, backend).first->second;
}

// Runs fn on memory full of NaN, after proving the plan.
inline std::vector<std::vector<double>> run(const std::function<Tensors()>& fn, const Policy& policy = {}, Backend& backend = test_backend()) {
  Executor& executor = executor_of(backend);
  Program program = Program::capture(fn, executor, policy);
  program.plan().verify();
  for (const Place place : {Place{}, backend.compute_place()})
    if (const std::size_t bytes = program.plan().peak(place)) poison(backend, executor.base(place, bytes), place, bytes);
  std::vector<std::vector<double>> results;
  const Tensors shapes = fn();  // for the count of results alone
  for (std::size_t i = 0; i < shapes.size(); ++i) std::memset(program.result(static_cast<int>(i)).as<void>(), 0xff, program.result(static_cast<int>(i)).bytes);
  program.run();
  for (std::size_t i = 0; i < shapes.size(); ++i) {
    const Storage& s = program.result(static_cast<int>(i));
    std::vector<double> v(s.spec.numel());
    for (std::size_t k = 0; k < v.size(); ++k) v[k] = get(s, static_cast<std::int64_t>(k));
    results.push_back(std::move(v));
  }
  Tape::current().nodes().clear();
  return results;
}

// Norm-wise relative error; infinities must agree.
inline double relative_error(const std::vector<double>& a, const std::vector<double>& b) {
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (std::isinf(b[i]) && a[i] == b[i]) continue;
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    norm += b[i] * b[i];
  }
  return norm == 0 ? std::sqrt(difference) : std::sqrt(difference / norm);
}

}  // namespace supersonic::testing
