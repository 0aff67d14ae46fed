// Everything is read from small text files; one that is missing or odd counts as "no limit".
#include "core/machine.h"

#include <sched.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <sstream>
#include <vector>

namespace supersonic {
namespace {

// The value after "name:" in a file of such lines, without leading blanks; empty when absent.
std::string line_value(const char* path, const std::string& name) {
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) {
    if (!line.starts_with(name)) continue;
    const std::size_t colon = line.find(':', name.size());
    const std::size_t begin =
        line.find_first_not_of(" \t", colon == std::string::npos ? line.size() : colon + 1);
    if (begin != std::string::npos) return line.substr(begin);
  }
  return {};
}

std::uint64_t kilobytes(const char* path, const std::string& name) {
  return std::strtoull(line_value(path, name).c_str(), nullptr, 10) * 1024;
}

std::string first_line(const std::string& path) {
  std::ifstream in(path);
  std::string line;
  std::getline(in, line);
  return line;
}

// The folders of this process's control group and of its ancestors, for one controller: a limit may
// stand at any level.
std::vector<std::string> group_folders(const std::string& controller) {
  std::ifstream in("/proc/self/cgroup");
  std::string root = "/sys/fs/cgroup", group;
  for (std::string line; std::getline(in, line);) {  // hierarchy:controllers:path
    const std::size_t a = line.find(':'), b = line.find(':', a + 1);
    if (a == std::string::npos || b == std::string::npos) continue;
    const std::string controllers = "," + line.substr(a + 1, b - a - 1) + ",";
    const bool v1 = controllers.find("," + controller + ",") != std::string::npos;
    if (!v1 && controllers != ",,") continue;
    group = line.substr(b + 1);
    root = v1 ? "/sys/fs/cgroup/" + controller : "/sys/fs/cgroup";
    if (v1) break;
  }
  std::vector<std::string> out;
  while (!group.empty() && group != "/") {
    out.push_back(root + group);
    group.erase(group.rfind('/'));
  }
  out.push_back(root);
  return out;
}

double group_quota() {
  double least = 0;
  for (const std::string& folder : group_folders("cpu")) {
    double quota = 0, period = 0;
    std::istringstream v2(first_line(folder + "/cpu.max"));
    if (!(v2 >> quota >> period)) {  // "max 100000", or version 1
      quota = std::strtod(first_line(folder + "/cpu.cfs_quota_us").c_str(), nullptr);
      period = std::strtod(first_line(folder + "/cpu.cfs_period_us").c_str(), nullptr);
    }
    if (quota > 0 && period > 0)
      least = least > 0 ? std::min(least, quota / period) : quota / period;
  }
  return least;
}

// Limit and room of the tightest memory group; {0, 0} without one.
struct MemoryGroup {
  std::uint64_t limit = 0, room = 0;
};
MemoryGroup memory_group(std::uint64_t machine) {
  MemoryGroup out;
  for (const std::string& folder : group_folders("memory")) {
    const bool v2 = access((folder + "/memory.max").c_str(), R_OK) == 0;
    const auto read = [&](const char* name) {
      return std::strtoull(first_line(folder + name).c_str(), nullptr, 10);
    };
    const std::uint64_t limit =
        read(v2 ? "/memory.max" : "/memory.limit_in_bytes");  // "max" reads as 0
    if (limit == 0 || limit >= machine) continue;
    const std::uint64_t used = read(v2 ? "/memory.current" : "/memory.usage_in_bytes");
    // Cached file pages are given back under pressure.
    std::ifstream stat(folder + "/memory.stat");
    std::uint64_t cache = 0, value = 0;
    for (std::string name; stat >> name >> value;)
      if (name == (v2 ? "inactive_file" : "total_inactive_file")) cache = value;
    const std::uint64_t held = used > cache ? used - cache : 0,
                        room = limit > held ? limit - held : 0;
    if (out.limit == 0 || limit < out.limit) out.limit = limit;
    if (out.room == 0 || room < out.room) out.room = room;
  }
  return out;
}

int allowed_cpus() {
  cpu_set_t set;
  return sched_getaffinity(0, sizeof set, &set) == 0 ? std::max(1, CPU_COUNT(&set)) : 1;
}

}  // namespace

Machine inspect_machine() {
  Machine m;
  m.cpu = line_value("/proc/cpuinfo", "model name");
  if (m.cpu.empty()) m.cpu = "unknown";
  m.logical_cpus = std::max(1, static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN)));
  m.allowed_cpus = allowed_cpus();
  m.cpu_quota = group_quota();
  m.memory = kilobytes("/proc/meminfo", "MemTotal");
  m.available = kilobytes("/proc/meminfo", "MemAvailable");
  const MemoryGroup group = memory_group(m.memory);
  m.memory_limit = group.limit;
  if (group.limit) m.available = std::min(m.available, group.room);
  utsname name{};
  if (uname(&name) == 0) m.os = std::string(name.sysname) + " " + name.release + " " + name.machine;
  return m;
}

int usable_threads() {
  const double quota = group_quota();
  const int by_quota = quota > 0 ? std::max(1, static_cast<int>(std::lround(std::min(quota, 1e6))))
                                 : std::numeric_limits<int>::max();
  return std::min(allowed_cpus(), by_quota);
}

std::uint64_t peak_resident_bytes() { return kilobytes("/proc/self/status", "VmHWM"); }

std::uint64_t free_disk_bytes(const std::string& path) {
  struct statvfs disk {};
  return statvfs(path.c_str(), &disk) == 0 ? std::uint64_t{disk.f_bavail} * disk.f_frsize : 0;
}

}  // namespace supersonic
