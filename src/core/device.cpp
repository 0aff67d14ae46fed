#include "core/device.h"

#include <dlfcn.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>

#include "core/error.h"
#include "core/machine.h"
#include "core/planes.h"

namespace supersonic {
namespace {

constexpr const char* kPlugin = "libsupersonic_cuda.so";
constexpr int kMostGpus = 64;

struct Plugin {
  Backend* (*open)(int device, char* error, std::size_t error_bytes) = nullptr;
  int (*list)(GpuInfo* out, int capacity, char* error, std::size_t error_bytes) = nullptr;
  std::string problem;  // why it could not be opened
};

std::string plugin_path() {
  Dl_info here{};
  if (!dladdr(reinterpret_cast<const void*>(&plugin_path), &here) || !here.dli_fname)
    return kPlugin;
  return (std::filesystem::path(here.dli_fname).parent_path() / kPlugin).string();
}

Plugin open_plugin() {
  Plugin p;
  if (!dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL)) {
    p.problem =
        "no NVIDIA driver was found (libcuda.so.1): install driver 580 or newer, or use --device "
        "cpu";
    return p;
  }
  const std::string path = plugin_path();
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    const char* reason = dlerror();
    p.problem = fmt::format(
        "the GPU plug-in cannot be opened ({}): build with nvcc 12.8 or newer on the PATH, or use "
        "--device cpu",
        reason ? reason : path);
    return p;
  }
  p.open = reinterpret_cast<decltype(p.open)>(dlsym(library, "supersonic_open_cuda"));
  p.list = reinterpret_cast<decltype(p.list)>(dlsym(library, "supersonic_list_cuda"));
  if (!p.open || !p.list)
    p.problem = fmt::format("{} is of another version of Supersonic: install both again", path);
  return p;
}

const Plugin& plugin() {
  static const Plugin opened = open_plugin();
  return opened;
}

// Null, with the reason, where the device cannot be used. A backend once opened stays.
Backend* open_gpu(int index, std::string& why) {
  static std::mutex mutex;
  static std::map<int, Backend*> opened;
  std::lock_guard lock(mutex);
  if (auto it = opened.find(index); it != opened.end()) return it->second;
  if (!plugin().problem.empty()) {
    why = plugin().problem;
    return nullptr;
  }
  char error[512] = {};
  Backend* backend = plugin().open(index, error, sizeof error);
  why = error;
  if (backend) opened[index] = backend;
  return backend;
}

int gpu_index(std::string_view device) {
  if (device == "cuda") return 0;
  int index = -1;
  const std::string_view digits = device.starts_with("cuda:") ? device.substr(5) : "";
  const auto [end, status] = std::from_chars(digits.data(), digits.data() + digits.size(), index);
  if (status != std::errc{} || end != digits.data() + digits.size() || index < 0 ||
      index >= kMostGpus)
    fail(ErrorKind::usage, "--device '{}' is not one of auto, cpu, cuda and cuda:0, cuda:1, …",
         device);
  return index;
}

}  // namespace

std::vector<GpuInfo> list_gpus(std::string* why) {
  std::string problem = plugin().problem;
  std::vector<GpuInfo> gpus;
  if (problem.empty()) {
    char error[512] = {};
    gpus.resize(kMostGpus);
    gpus.resize(
        static_cast<std::size_t>(plugin().list(gpus.data(), kMostGpus, error, sizeof error)));
    problem = error;
  }
  if (why) *why = problem;
  return gpus;
}

std::string driver_release() {
  std::ifstream file("/proc/driver/nvidia/version");
  std::string word;
  while (file >> word)
    if (word.find('.') != std::string::npos &&
        word.find_first_not_of("0123456789.") == std::string::npos)
      return word;
  return {};
}

Backend& device_backend(std::string_view device) {
  if (device == "cpu") return cpu_backend();
  std::string why;
  if (device == "auto") {
    Backend* gpu = open_gpu(0, why);
    return gpu ? *gpu : cpu_backend();
  }
  Backend* gpu = open_gpu(gpu_index(device), why);
  CHECK(gpu, "--device {}: {}", device, why);
  return *gpu;
}

std::uint64_t free_bytes(Backend& backend) {
  const Place place = backend.compute_place();
  return place == Place{} ? inspect_machine().available : list_gpus().at(place.index).free_bytes;
}

TakenMemory::TakenMemory(Backend& backend) : backend_(backend), free_before_(free_bytes(backend)) {}

std::uint64_t TakenMemory::bytes() const {
  if (backend_.compute_place() == Place{}) return peak_resident_bytes();
  return free_before_ - std::min(free_before_, free_bytes(backend_));
}

void copy_contents(const Storage& to, const Storage& from, Backend& backend) {
  CHECK(to.spec == from.spec, "cannot copy {} into {}", to_string(from.spec), to_string(to.spec));
  const Spec& s = to.spec;
  const LaneKind kind =
      to.place == backend.compute_place() ? LaneKind::copy_in : LaneKind::copy_out;
  for (int p = 0; p < (s.format ? s.format->planes : 1); ++p) {
    const std::size_t bytes =
        s.format ? plane_bytes(s, p) : to.bytes;
    backend.copy(const_cast<void*>(to.planes.data[p]), to.place, from.planes.data[p], from.place,
                 bytes, backend.lane(kind));
  }
  backend.sync();
}

StorageRef resident(const StorageRef& storage, Backend& backend) {
  if (storage->place == backend.compute_place()) return storage;
  StorageRef copy = backend.storage(storage->spec, storage->name);
  copy_contents(*copy, *storage, backend);
  return copy;
}

}  // namespace supersonic
