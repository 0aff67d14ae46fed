// The device under test. SUPERSONIC_TEST_DEVICE=cuda runs what does not depend on the CPU backend's
// own plans on a GPU: the generated operation tests, the planner's comparisons, random graphs.
// Where no GPU is, tests that need one are skipped.
#pragma once
#include <cstdlib>
#include <cstring>
#include <vector>

#include "core/device.h"
#include "core/executor.h"

namespace supersonic::testing {

inline Backend& test_backend() {
  static Backend& backend = [&]() -> Backend& {
    const char* name = std::getenv("SUPERSONIC_TEST_DEVICE");
    return device_backend(name && *name ? name : "cpu");
  }();
  return backend;
}
inline bool apart(Backend& b) { return b.compute_place().kind == Place::device; }

// Bytes to and from any place that a backend has.
inline void write_bytes(Backend& b, void* to, Place place, const void* from, std::size_t bytes) {
  b.copy(to, place, from, Place{}, bytes, b.lane(LaneKind::copy_in));
  b.sync();
}
inline void poison(Backend& b, void* at, Place place, std::size_t bytes) {
  const std::vector<std::byte> ones(bytes, std::byte{0xff});
  write_bytes(b, at, place, ones.data(), bytes);
}

// The storages as the device under test reads them in place: in its memory, one element off every
// alignment, with poison around. On the CPU they are themselves.
inline std::vector<StorageRef> placed(const std::vector<StorageRef>& in,
                                      Backend& b = test_backend()) {
  if (!apart(b)) return in;
  std::vector<StorageRef> out;
  for (const auto& s : in) {
    if (s->spec.format) {
      out.push_back(resident(s, b));
      continue;
    }
    const auto shift = static_cast<std::int64_t>(64 + size_of(s->spec.dtype)),
               bytes = static_cast<std::int64_t>(s->bytes);
    const StorageRef block = b.storage({Shape{bytes + 2 * shift}, DType::u8, nullptr}, "block");
    poison(b, block->as<void>(), block->place, block->bytes);
    StorageRef moved =
        Storage::external(s->spec, Planes{{block->as<std::byte>() + shift}}, s->name, [block] {});
    moved->place = block->place;
    copy_contents(*moved, *s, b);
    out.push_back(moved);
  }
  return out;
}

}  // namespace supersonic::testing
