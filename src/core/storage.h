// Storage: memory that outlives a plan (parameters, gradients, moments, KV pages, program inputs and results), and Spec,
// the description of one tensor's contents. A storage is the only thing that a recorded operation can write; each write
// bumps its version, which is how a plan proves that a recomputed node reads what its original read.
#pragma once
#include <atomic>
#include <cstddef>
#include <functional>
#include <span>
#include <string>

#include "core/dtype.h"
#include "core/ref.h"
#include "core/shape.h"
#include "formats/format.h"

namespace supersonic {

// Where bytes live. `index` tells the devices of one kind apart.
struct Place {
  enum Kind : std::uint8_t { host, pinned, device } kind = host;
  std::uint8_t index = 0;
  bool operator==(const Place&) const = default;
};

// Shape, scalar type and, for a quantized matrix, its format. More than two dimensions (a KV cache) count as rows of the last one.
struct Spec {
  Shape shape;
  DType dtype = DType::f32;
  const Format* format = nullptr;
  bool operator==(const Spec&) const = default;
  std::int64_t numel() const { return shape.numel(); }
};
std::size_t bytes_of(const Spec& spec);
std::string to_string(const Spec& spec);  // "bf16(2, 33, 4096)"

struct Storage {
  std::atomic<int> refs{0};
  Spec spec;
  Place place;
  Planes planes;  // planes.data[0] is the data of a dense storage
  std::size_t bytes = 0;
  std::uint64_t version = 0;
  std::string name;
  std::function<void()> release;  // frees the memory or drops what keeps it alive

  template <class T>
  T* as() const { return static_cast<T*>(const_cast<void*>(planes.data[0])); }
  template <class T>
  std::span<T> values() const { return {as<T>(), static_cast<std::size_t>(spec.numel())}; }
  static void destroy(Storage* s);

  // Zero-filled host memory, 64-byte aligned (2 MiB aligned and backed by huge pages where large).
  static Ref<Storage> make(const Spec& spec, std::string name = {});
  // Memory of somebody else (a mapped file). `release` runs when the last reference goes.
  static Ref<Storage> external(const Spec& spec, const Planes& planes, std::string name,
                               std::function<void()> release = {});
};
using StorageRef = Ref<Storage>;

}  // namespace supersonic
