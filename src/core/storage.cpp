#include "core/storage.h"

#include <sys/mman.h>

#include <cstdlib>

#include "core/error.h"
#include "core/planes.h"

namespace supersonic {

namespace {

// Offset of plane `p`; of the one after the last: the bytes of all.
std::size_t plane_offset(const Spec& spec, int p) {
  constexpr std::size_t kAlign = 4;
  std::size_t offset = 0;
  for (int k = 0; k < p; ++k) {
    offset += plane_bytes(spec, k);
    if (k + 1 < spec.format->planes) offset = (offset + kAlign - 1) / kAlign * kAlign;
  }
  return offset;
}

}  // namespace

std::size_t plane_bytes(const Spec& spec, int plane) {
  const std::int64_t cols = spec.shape[-1];
  return spec.format->plane_bytes(*spec.format, plane, cols ? spec.numel() / cols : 0, cols);
}

std::size_t bytes_of(const Spec& spec) {
  if (!spec.format) return static_cast<std::size_t>(spec.numel()) * size_of(spec.dtype);
  return plane_offset(spec, spec.format->planes);
}

Planes planes_in(void* memory, const Spec& spec) {
  Planes planes;
  for (int p = 0; p < (spec.format ? spec.format->planes : 1); ++p)
    planes.data[p] = static_cast<std::byte*>(memory) + (spec.format ? plane_offset(spec, p) : 0);
  return planes;
}

std::string to_string(const Spec& spec) {
  return std::string(spec.format ? spec.format->name : name_of(spec.dtype)) + to_string(spec.shape);
}

void Storage::destroy(Storage* s) {
  if (s->release) s->release();
  delete s;
}

Ref<Storage> Storage::make(const Spec& spec, std::string name) {
  const std::size_t bytes = bytes_of(spec), page = 4096;
  const std::size_t mapped = (std::max<std::size_t>(bytes, 1) + page - 1) / page * page;
  void* data = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) {
    fail(ErrorKind::memory, "cannot reserve {} bytes for '{}': free memory or choose a smaller batch or context", mapped,
         name);
  }
  if (mapped >= (std::size_t{4} << 20)) madvise(data, mapped, MADV_HUGEPAGE);
  return external(spec, planes_in(data, spec), std::move(name), [data, mapped] { munmap(data, mapped); });
}

Ref<Storage> Storage::external(const Spec& spec, const Planes& planes, std::string name,
                               std::function<void()> release) {
  auto* s = new Storage;
  s->spec = spec;
  s->planes = planes;
  s->bytes = bytes_of(spec);
  s->name = std::move(name);
  s->release = std::move(release);
  return Ref<Storage>(s);
}

}  // namespace supersonic
