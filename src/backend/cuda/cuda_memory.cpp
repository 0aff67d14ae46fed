#include "backend/cuda/cuda_memory.h"

#include <cuda.h>
#include <cuda_runtime_api.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "backend/cuda/cuda_backend.h"
#include "core/error.h"
#include "core/planes.h"

namespace supersonic::cuda {
namespace {

constexpr std::size_t kHostReserve =
    std::size_t{1} << 38;  // 256 GiB of addresses; memory is taken as the arena grows
constexpr std::size_t kHostStep = std::size_t{2} << 20, kStorageAlign = 256;

std::size_t rounded(std::size_t bytes, std::size_t unit) {
  return (bytes + unit - 1) / unit * unit;
}

// The driver's functions for virtual memory, through the run time: nothing links to libcuda.
struct Driver {
  decltype(&cuMemAddressReserve) reserve;
  decltype(&cuMemAddressFree) unreserve;
  decltype(&cuMemCreate) create;
  decltype(&cuMemRelease) release;
  decltype(&cuMemMap) map;
  decltype(&cuMemUnmap) unmap;
  decltype(&cuMemSetAccess) set_access;
  decltype(&cuMemGetAllocationGranularity) granularity;
  decltype(&cuGetErrorString) error_string;
};

template <class F>
void resolve(F& function, const char* name) {
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result;
  check(cudaGetDriverEntryPointByVersion(name, &found, 12000, cudaEnableDefault, &result), name);
  CHECK(found && result == cudaDriverEntryPointSuccess,
        "the NVIDIA driver lacks {}: install driver 580 or newer", name);
  function = reinterpret_cast<F>(found);
}

const Driver& driver() {
  static const Driver functions = [] {
    Driver d{};
    resolve(d.reserve, "cuMemAddressReserve");
    resolve(d.unreserve, "cuMemAddressFree");
    resolve(d.create, "cuMemCreate");
    resolve(d.release, "cuMemRelease");
    resolve(d.map, "cuMemMap");
    resolve(d.unmap, "cuMemUnmap");
    resolve(d.set_access, "cuMemSetAccess");
    resolve(d.granularity, "cuMemGetAllocationGranularity");
    resolve(d.error_string, "cuGetErrorString");
    return d;
  }();
  return functions;
}

void check_driver(CUresult status, const char* call) {
  if (status == CUDA_SUCCESS) return;
  const char* text = nullptr;
  driver().error_string(status, &text);
  fail(status == CUDA_ERROR_OUT_OF_MEMORY ? ErrorKind::memory : ErrorKind::failure, "{}: {}", call,
       text ? text : "unknown error");
}

// Device memory for ranges of reserved addresses, in the driver's units.
class DevicePages {
 public:
  explicit DevicePages(int device) {
    property_.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    property_.location = {CU_MEM_LOCATION_TYPE_DEVICE, device};
    check_driver(driver().granularity(&unit_, &property_, CU_MEM_ALLOC_GRANULARITY_RECOMMENDED),
                 "cuMemGetAllocationGranularity");
    std::size_t free = 0;
    check(cudaMemGetInfo(&free, &total_), "cudaMemGetInfo");
    total_ = rounded(total_, unit_);
  }
  std::size_t unit() const { return unit_; }
  std::size_t total() const { return total_; }  // bytes of the device

  CUmemGenericAllocationHandle map(CUdeviceptr at, std::size_t bytes) const {
    CUmemGenericAllocationHandle piece{};
    check_driver(driver().create(&piece, bytes, &property_, 0), "cuMemCreate");
    if (const CUresult status = driver().map(at, bytes, 0, piece, 0); status != CUDA_SUCCESS) {
      driver().release(piece);
      check_driver(status, "cuMemMap");
    }
    const CUmemAccessDesc access{property_.location, CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
    check_driver(driver().set_access(at, bytes, &access, 1), "cuMemSetAccess");
    return piece;
  }

 private:
  CUmemAllocationProp property_{};
  std::size_t unit_ = 0, total_ = 0;
};

class DeviceArena : public Arena {
 public:
  explicit DeviceArena(int device) : pages_(device), reserved_(pages_.total()) {
    check_driver(driver().reserve(&base_, reserved_, 0, 0, 0), "cuMemAddressReserve");
  }
  ~DeviceArena() override {
    if (mapped_) driver().unmap(base_, mapped_);
    for (auto piece : pieces_) driver().release(piece);
    driver().unreserve(base_, reserved_);
  }
  void* base() override { return reinterpret_cast<void*>(base_); }

  void grow(std::size_t bytes) override {
    const std::size_t wanted = rounded(bytes, pages_.unit());
    if (wanted <= mapped_) return;
    const std::size_t more = wanted - mapped_;
    std::size_t free = 0, total = 0;
    check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
    if (wanted > reserved_ || more > free)
      fail(ErrorKind::memory,
           "the GPU has {} of {} bytes free, and the run needs {} more: close other programs that "
           "use it, choose a smaller batch or "
           "context, or lower --memory",
           free, total, more);
    pieces_.push_back(pages_.map(base_ + mapped_, more));
    mapped_ = wanted;
  }

 private:
  DevicePages pages_;
  CUdeviceptr base_ = 0;
  std::size_t reserved_ = 0, mapped_ = 0;
  std::vector<CUmemGenericAllocationHandle> pieces_;
};

class LockedHostArena : public Arena {
 public:
  ~LockedHostArena() override {
    for (const auto& [at, bytes] : locked_) cudaHostUnregister(at);
    if (base_) munmap(base_, kHostReserve);
  }
  void* base() override { return base_; }

  void grow(std::size_t bytes) override {
    if (!base_) {
      void* p = mmap(nullptr, kHostReserve, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                     -1, 0);
      if (p == MAP_FAILED)
        fail(ErrorKind::memory, "cannot reserve address space for the host arena: {}",
             std::strerror(errno));
      base_ = static_cast<std::byte*>(p);
    }
    const std::size_t wanted = rounded(bytes, kHostStep);
    if (wanted <= bytes_) return;
    std::byte* at = base_ + bytes_;
    const std::size_t more = wanted - bytes_;
    if (wanted > kHostReserve || mprotect(at, more, PROT_READ | PROT_WRITE) != 0)
      fail(ErrorKind::memory,
           "cannot grow the host arena to {} bytes: free memory or choose a smaller batch or "
           "context",
           wanted);
    madvise(at, more, MADV_HUGEPAGE);  // fewer pages to lock
    check(cudaHostRegister(at, more, cudaHostRegisterPortable), "page-locking host memory");
    locked_.push_back({at, more});
    bytes_ = wanted;
  }

 private:
  std::byte* base_ = nullptr;
  std::size_t bytes_ = 0;
  std::vector<std::pair<std::byte*, std::size_t>> locked_;
};

}  // namespace

// A storage begins where the one before it ended, so that a model of hundreds of matrices wastes
// less than one of the driver's units (2 MiB) and not half of one for each. A run of units lives
// until the last storage in it has gone.
struct StoragePool::Pages : DevicePages {
  struct Run {
    CUdeviceptr begin, end;
    CUmemGenericAllocationHandle handle;
    int users;
  };
  using DevicePages::DevicePages;
  CUdeviceptr next = 0, mapped = 0, reserved_end = 0;
  std::vector<Run> runs;

  void reserve(std::size_t bytes) {
    const std::size_t size = std::max(rounded(bytes, unit()), 8 * total());
    check_driver(driver().reserve(&next, size, 0, 0, 0), "cuMemAddressReserve");
    mapped = next;
    reserved_end = next + size;
  }
};

StoragePool::StoragePool(int device) : device_(device), pages_(std::make_unique<Pages>(device)) {}
StoragePool::~StoragePool() =
    default;  // at the end of the process, and the driver's memory with it

std::byte* StoragePool::take(std::size_t bytes, const std::string& name) {
  std::lock_guard lock(mutex_);
  Pages& p = *pages_;
  if (p.next + bytes > p.reserved_end) p.reserve(bytes);
  const CUdeviceptr begin = p.next, end = begin + bytes;
  if (end > p.mapped) {
    const std::size_t more = rounded(end - p.mapped, p.unit());
    std::size_t free = 0, total = 0;
    check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
    if (more > free)
      fail(ErrorKind::memory,
           "the GPU has {} of {} bytes free, and '{}' needs {}: close other programs that use it, "
           "or "
           "choose a smaller or 4-bit model",
           free, total, name, more);
    p.runs.push_back({p.mapped, p.mapped + more, p.map(p.mapped, more), 0});
    p.mapped += more;
  }
  for (auto& r : p.runs) r.users += r.begin < end && begin < r.end;
  p.next = end;
  return reinterpret_cast<std::byte*>(begin);
}

void StoragePool::give(std::byte* data, std::size_t bytes) {
  std::lock_guard lock(mutex_);
  Pages& p = *pages_;
  const auto begin = reinterpret_cast<CUdeviceptr>(data), end = begin + bytes;
  std::erase_if(p.runs, [&](Pages::Run& r) {
    if (!(r.begin < end && begin < r.end) || --r.users > 0) return false;
    // At the end of the process the driver may be gone already, and the memory with it.
    driver().unmap(r.begin, r.end - r.begin);
    driver().release(r.handle);
    if (r.end == p.mapped) p.next = p.mapped;  // what follows begins in fresh memory
    return true;
  });
}

std::unique_ptr<Arena> device_arena(int device) { return std::make_unique<DeviceArena>(device); }
std::unique_ptr<Arena> locked_host_arena() { return std::make_unique<LockedHostArena>(); }

StorageRef device_storage(StoragePool& pool, const Spec& spec, std::string name) {
  const int count = spec.format ? spec.format->planes : 1;
  std::size_t offsets[kMaxPlanes] = {}, bytes = 0;
  for (int p = 0; p < count; ++p) {
    offsets[p] = bytes;
    bytes += rounded(spec.format ? plane_bytes(spec, p) : bytes_of(spec), kStorageAlign);
  }
  bytes = std::max<std::size_t>(bytes, kStorageAlign);
  std::byte* const data = pool.take(bytes, name);
  check(cudaMemset(data, 0, bytes), "cudaMemset");
  check(cudaStreamSynchronize(nullptr), "cudaMemset");  // lanes do not wait for the default stream
  Planes planes;
  for (int p = 0; p < count; ++p) planes.data[p] = data + offsets[p];
  StorageRef storage = Storage::external(spec, planes, std::move(name),
                                         [&pool, data, bytes] { pool.give(data, bytes); });
  storage->place = {Place::device, static_cast<std::uint8_t>(pool.device())};
  return storage;
}

StorageRef locked_copy(const StorageRef& from) {
  constexpr std::size_t kOwnPages = std::size_t{1} << 20;
  if (!from->spec.format && from->bytes < kOwnPages) {  // a page can be registered only once
    StorageRef s = locked_storage(from->spec, from->name);
    std::memcpy(s->as<std::byte>(), from->as<std::byte>(), from->bytes);
    return s;
  }
  StorageRef s = Storage::make(from->spec, from->name);
  for (int p = 0; p < (s->spec.format ? s->spec.format->planes : 1); ++p)
    std::memcpy(const_cast<void*>(s->planes.data[p]), from->planes.data[p],
                s->spec.format ? plane_bytes(s->spec, p) : s->bytes);
  void* const at = s->as<void>();
  check(cudaHostRegister(at, s->bytes, cudaHostRegisterPortable | cudaHostRegisterMapped),
        "page-locking host memory");
  s->release = [at, release = std::move(s->release)] {
    cudaHostUnregister(at);
    release();
  };
  s->place = {Place::pinned, 0};
  return s;
}

StorageRef seen_from_device(int device, const StorageRef& locked) {
  Planes planes;
  for (int p = 0; p < (locked->spec.format ? locked->spec.format->planes : 1); ++p) {
    void* there = nullptr;
    check(cudaHostGetDevicePointer(&there, const_cast<void*>(locked->planes.data[p]), 0),
          "cudaHostGetDevicePointer");
    planes.data[p] = there;
  }
  StorageRef s = Storage::external(locked->spec, planes, locked->name, [locked] {});
  s->place = {Place::device, static_cast<std::uint8_t>(device)};
  return s;
}

StorageRef locked_storage(const Spec& spec, std::string name) {
  void* data = nullptr;
  const std::size_t bytes = std::max<std::size_t>(bytes_of(spec), kStorageAlign);
  check(cudaHostAlloc(&data, bytes, cudaHostAllocPortable | cudaHostAllocMapped),
        "page-locking host memory");
  std::memset(data, 0, bytes);
  Planes planes;
  planes.data[0] = data;
  StorageRef storage =
      Storage::external(spec, planes, std::move(name), [data] { cudaFreeHost(data); });
  storage->place = {Place::pinned, 0};
  return storage;
}

}  // namespace supersonic::cuda
