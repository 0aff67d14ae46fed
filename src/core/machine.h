// What this process may use of the machine: the limits of its control groups count, not only what
// the hardware has. Linux: /proc, /sys/fs/cgroup (version 1 and 2), sched_getaffinity.
#pragma once
#include <cstdint>
#include <string>

namespace supersonic {

struct Machine {
  std::string cpu;              // "AMD EPYC 9R14"; "unknown" when the kernel does not say
  int logical_cpus = 1;         // of the machine
  int allowed_cpus = 1;         // by affinity
  double cpu_quota = 0;         // CPUs' worth of time by control group; 0: no limit
  std::uint64_t memory = 0;     // bytes of the machine
  std::uint64_t available = 0;  // bytes that can be had without swapping, within the control group
  std::uint64_t memory_limit = 0;  // bytes by control group; 0: no limit
  std::string os;                  // "Linux 6.1.0 x86_64"
};

Machine inspect_machine();

int usable_threads();                 // the default of --threads: affinity and quota, at least 1
std::uint64_t peak_resident_bytes();  // VmHWM of this process
std::uint64_t free_disk_bytes(
    const std::string& path);  // for this user; 0 when the path does not exist

}  // namespace supersonic
