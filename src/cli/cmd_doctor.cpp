// supersonic doctor: what this machine offers and what stands in the way; the page to paste into a
// bug report.
#include <fmt/core.h>
#include <unistd.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "backend/cpu/kernels/probe.h"
#include "backend/cpu/pool.h"
#include "cli/command.h"
#include "cli/console.h"
#include "cli/json_writer.h"
#include "core/device.h"
#include "core/machine.h"

namespace supersonic::cli {
namespace {

constexpr std::uint64_t kGiB = 1ull << 30;

std::string gib(std::uint64_t bytes) {
  return fmt::format("{:.1f} GiB", static_cast<double>(bytes) / static_cast<double>(kGiB));
}

std::string temporary_folder() {
  const char* folder = std::getenv("TMPDIR");
  return folder && *folder ? folder : "/tmp";
}

// The GPUs, and why there are none.
struct Gpus {
  std::string driver, problem;
  std::vector<GpuInfo> list;
};
Gpus find_gpus() {
  Gpus g;
  g.driver = driver_release();
  g.list = list_gpus(&g.problem);
  return g;
}

std::string capability(const GpuInfo& g) {
  return fmt::format("{}.{}", g.capability_major, g.capability_minor);
}

// What a person should know or change, each with its remedy.
std::vector<std::string> advice(const Machine& m, const Gpus& gpus, int threads,
                                std::uint64_t disk) {
  std::vector<std::string> out;
  if (!gpus.driver.empty() && gpus.list.empty())
    out.push_back(fmt::format("NVIDIA's driver {} is installed, but no GPU can be used: {}",
                              gpus.driver, gpus.problem));
  if (cpu::isa() == cpu::Isa::portable && m.os.ends_with("x86_64"))
    out.push_back(
        "neither AVX2 nor AVX-512 is usable here: the portable kernels are several times slower");
  if (m.cpu_quota > 0 && threads < m.allowed_cpus)
    out.push_back(fmt::format(
        "the control group allows {:.1f} of {} CPUs: raise its CPU limit for more speed",
        m.cpu_quota, m.allowed_cpus));
  if (m.available < 2 * kGiB)
    out.push_back(fmt::format(
        "{} of memory are available: close other programs, or choose a smaller or 4-bit model",
        gib(m.available)));
  if (disk < 5 * kGiB)
    out.push_back(fmt::format(
        "{} are free on this disk: a merged model of 1 B parameters needs 2 GiB", gib(disk)));
  for (const char* variable : {"SUPERSONIC_ISA", "SUPERSONIC_EAGER", "SUPERSONIC_SYNC"})
    if (const char* value = std::getenv(variable))
      out.push_back(fmt::format("{}={} is set and slows this program down", variable, value));
  return out;
}

struct Doctor {
  bool json = false;
  static constexpr About about{
      .summary = "Show what this machine offers and what stands in the way",
      .usage = "[--json]",
      .details =
          "Lists the processor and the instruction set that the kernels use, threads, GPUs and "
          "their "
          "driver, memory and disk with the limits of "
          "control groups counted in, and what could be better. Paste the output of 'supersonic "
          "doctor --json' into a bug report.",
      .examples = "supersonic doctor\nsupersonic doctor --json > doctor.json",
      .group = CommandGroup::system};
  void options(Options& o) { declare_json(o, json); }

  int run(Context&) {
    const Machine m = inspect_machine();
    const int threads = usable_threads();
    const std::uint64_t disk = free_disk_bytes("."),
                        temporary = free_disk_bytes(temporary_folder());
    const Gpus gpus = find_gpus();
    const auto notes = advice(m, gpus, threads, disk);
    cpu::Pool pool(threads);
    const cpu::Limits limits = cpu::probe_limits(pool);
    return json ? print_json(m, gpus, threads, limits, disk, temporary, notes)
                : print_text(m, gpus, threads, limits, disk, temporary, notes),
           0;
  }

  static void write_gpus(JsonWriter& w, const Gpus& gpus) {
    w.key("gpu_driver").value(gpus.driver).key("gpu_problem").value(gpus.problem);
    w.key("gpus").begin_array();
    for (const GpuInfo& g : gpus.list) {
      w.begin_object()
          .key("name")
          .value(std::string(g.name))
          .key("compute_capability")
          .value(capability(g));
      w.key("multiprocessors").value(g.multiprocessors).key("cuda_version").value(g.cuda_version);
      w.key("total_bytes").value(g.total_bytes).key("free_bytes").value(g.free_bytes).end_object();
    }
    w.end_array();
  }

  static void print_json(const Machine& m, const Gpus& gpus, int threads, const cpu::Limits& limits,
                         std::uint64_t disk, std::uint64_t temporary,
                         const std::vector<std::string>& notes) {
    JsonWriter w;
    w.begin_object().key("version").value(SUPERSONIC_VERSION).key("os").value(m.os);
    w.key("cpu").begin_object().key("name").value(m.cpu).key("isa").value(cpu::name_of(cpu::isa()));
    w.key("logical")
        .value(m.logical_cpus)
        .key("allowed")
        .value(m.allowed_cpus)
        .key("quota")
        .value(m.cpu_quota);
    w.key("threads").value(threads).end_object();
    w.key("limits").begin_object().key("fp32_operations_per_second").value(limits.fp32);
    w.key("bf16_operations_per_second")
        .value(limits.bf16)
        .key("int8_operations_per_second")
        .value(limits.int8);
    w.key("read_bytes_per_second").value(limits.read).end_object();
    w.key("memory")
        .begin_object()
        .key("total_bytes")
        .value(m.memory)
        .key("available_bytes")
        .value(m.available);
    w.key("limit_bytes").value(m.memory_limit).end_object();
    w.key("disk")
        .begin_object()
        .key("here_free_bytes")
        .value(disk)
        .key("temporary_free_bytes")
        .value(temporary)
        .end_object();
    write_gpus(w, gpus);
    w.key("advice").begin_array();
    for (const std::string& note : notes) w.value(note);
    w.end_array().end_object();
    print(w.text() + "\n");
  }

  static void print_gpus(const Gpus& gpus) {
    if (gpus.list.empty()) print(fmt::format("  {:<12}none: {}\n", "gpu", gpus.problem));
    for (std::size_t i = 0; i < gpus.list.size(); ++i) {
      const GpuInfo& g = gpus.list[i];
      print(fmt::format(
          "  {:<12}cuda:{} {}, compute capability {}, {} multiprocessors, {} free of {}\n", "gpu",
          i, g.name, capability(g), g.multiprocessors, gib(g.free_bytes), gib(g.total_bytes)));
    }
    if (!gpus.list.empty())
      print(fmt::format("  {:<12}{} (CUDA {}.{})\n", "driver",
                        gpus.driver.empty() ? "unknown release" : gpus.driver,
                        gpus.list[0].cuda_version / 1000, gpus.list[0].cuda_version % 1000 / 10));
  }

  static void print_text(const Machine& m, const Gpus& gpus, int threads, const cpu::Limits& limits,
                         std::uint64_t disk, std::uint64_t temporary,
                         const std::vector<std::string>& notes) {
    print(fmt::format("supersonic {} on {}\n", SUPERSONIC_VERSION, m.os));
    print(fmt::format("  {:<12}{}\n", "processor", m.cpu));
    print(fmt::format("  {:<12}{}\n", "kernels", cpu::name_of(cpu::isa())));
    std::string use = fmt::format("{} used, {} in the machine", threads, m.logical_cpus);
    if (m.allowed_cpus < m.logical_cpus)
      use += fmt::format(", {} allowed by affinity", m.allowed_cpus);
    if (m.cpu_quota > 0) use += fmt::format(", {:.1f} by the control group", m.cpu_quota);
    print(fmt::format("  {:<12}{}\n", "threads", use));
    print(fmt::format(
        "  {:<12}fp32 {:.0f}, bf16 {:.0f}, int8 {:.0f} Gop/s; {:.1f} GB/s read (probed now, all "
        "threads)\n",
        "limits", limits.fp32 / 1e9, limits.bf16 / 1e9, limits.int8 / 1e9, limits.read / 1e9));
    print_gpus(gpus);
    print(fmt::format("  {:<12}{} available of {}{}\n", "memory", gib(m.available), gib(m.memory),
                      m.memory_limit
                          ? fmt::format(", {} allowed by the control group", gib(m.memory_limit))
                          : ""));
    print(fmt::format("  {:<12}{} free here, {} in {}\n", "disk", gib(disk), gib(temporary),
                      temporary_folder()));
    for (const std::string& note : notes) print(fmt::format("! {}\n", note));
    if (notes.empty()) print("Nothing stands in the way.\n");
  }
};

}  // namespace

COMMAND(doctor, Doctor)

}  // namespace supersonic::cli
