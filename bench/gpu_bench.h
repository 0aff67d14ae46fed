// What the benchmarks of GPU kernels share: inputs of any spec on the device, the kernel that takes
// an operation, its time, and the rate at which it moves bytes (against a copy within the device's
// memory) or multiplies.
#pragma once
#include <chrono>
#include <functional>

#include "core/device.h"
#include "core/graph.h"
#include "core/tape.h"

namespace supersonic {

struct Bench {
  Backend& gpu;
  double copy_rate = 0;  // bytes a second
  // Floats of either sign and several magnitudes. Products need them: on numbers that are all alike
  // the tensor cores draw less power and run a fifth faster than on real ones.
  bool signs = false;

  // Seconds of one launch: the shortest of five runs of many, or of few long ones.
  double seconds(const std::function<void()>& launch) const {
    const auto time = [&](int launches) {
      const auto start = std::chrono::steady_clock::now();
      for (int i = 0; i < launches; ++i) launch();
      gpu.sync();
      return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() /
             launches;
    };
    time(1);
    const int launches = std::clamp(static_cast<int>(0.1 / time(1)), 3, 20);
    double best = 1e30;
    for (int run = 0; run < 5; ++run) best = std::min(best, time(launches));
    return best;
  }

  void print_flops(const char* name, const std::string& shape, double flops, double s) const {
    fmt::print("{:<28}{:<34}{:>9.1f} us {:>8.1f} TF/s\n", name, shape, s * 1e6, flops / s / 1e12);
  }
  void print(const char* name, const std::string& shape, double bytes, double s) const {
    fmt::print("{:<28}{:<34}{:>9.1f} us {:>8.0f} GB/s {:>6.2f} of a copy\n", name, shape, s * 1e6,
               bytes / s / 1e9, bytes / s / copy_rate);
  }

  // Whole numbers of input i, where a kernel wants particular ones.
  using Ints = std::function<std::int64_t(std::size_t input, std::int64_t i)>;

  StorageRef random(const Spec& spec, const Ints& ints = {}, std::size_t input = 0) const {
    StorageRef host = Storage::make(spec);
    if (spec.dtype == DType::i32 && ints) {
      for (std::int64_t i = 0; i < spec.numel(); ++i)
        host->as<std::int32_t>()[i] = static_cast<std::int32_t>(ints(input, i));
      return resident(host, gpu);
    }
    auto* words = host->as<std::uint16_t>();
    // Floats and 16-bit floats near 1; codes of any value, with scales of that size.
    for (std::size_t i = 0; i < host->bytes / 2; ++i) {
      const auto r = static_cast<std::uint16_t>((i * 2654435761u) >> 13);
      words[i] = static_cast<std::uint16_t>(spec.dtype == DType::i32 ? i & 1 ? 0 : r & 0xfff
                                            : spec.format            ? r
                                            : signs ? (r & 0x8000) | (0x3e00 + (r & 0x1ff))
                                                    : 0x3f00 + (r & 0x7f));
    }
    return resident(host, gpu);
  }

  // A kernel with its operands on the device, ready to be launched.
  struct Launch {
    std::vector<StorageRef> operands, results;
    std::vector<StorageRef> forms;  // of operands that the kernel wants prepared
    StorageRef workspace;
    double bytes = 0;  // read and written, each operand once
    std::function<void()> run;
  };

  // The kernel that takes the operation with these operands; the results' specs are inferred by
  // recording it.
  Launch prepare(const Op& op, const Attrs& attrs, const std::vector<StorageRef>& operands,
                 Compute compute) const {
    Launch l;
    l.operands = operands;
    Tensors inputs;
    for (const StorageRef& s : operands) inputs.push_back(from_storage(s));
    const Tensors out = op.traits.effect ? Tensors{} : record(op, attrs, inputs, Where::current());
    Problem p;
    p.op = &op;
    p.attrs = attrs;
    p.compute = compute;
    Pointers ptr;
    for (std::size_t i = 0; i < operands.size(); ++i) {
      const Storage& s = *operands[i];
      p.in.push_back({s.spec, contiguous_strides(s.spec.shape), true, nullptr});
      ptr.in[i] = operands[i]->as<void>();
      ptr.planes[i] = &operands[i]->planes;
      l.bytes +=
          static_cast<double>(s.bytes) * (op.traits.writes >> i & 1 && op.traits.effect ? 2 : 1);
    }
    for (std::size_t o = 0; o < out.size(); ++o) {
      l.results.push_back(gpu.storage(out[o].spec(), "result"));
      p.out.push_back({out[o].spec(), contiguous_strides(out[o].shape()), true, nullptr});
      ptr.out[o] = l.results.back()->as<void>();
      l.bytes += static_cast<double>(l.results.back()->bytes);
    }
    Tape::current().nodes().clear();
    const auto chain = std::make_shared<ChainProgram>();
    const Kernel* const k = op.map ? chain_kernel(*chain, p) : find(p);
    Lane& lane = gpu.lane(LaneKind::compute);
    for (std::size_t i = 0; k->form && i < p.in.size(); ++i) {
      const Form* const form = k->form(p, static_cast<int>(i));
      if (!form) continue;
      const auto bytes = static_cast<std::int64_t>(form->bytes(p.in[i].spec));
      l.forms.push_back(gpu.storage({Shape{bytes}, DType::u8, nullptr}, form->name));
      form->make(p.in[i], ptr.in[i], l.forms.back()->as<void>(), lane);
      ptr.in[i] = l.forms.back()->as<void>();
      p.in[i].form = form;
    }
    if (const std::size_t n = k->workspace ? k->workspace(p) : 0) {
      l.workspace =
          gpu.storage({Shape{static_cast<std::int64_t>(n)}, DType::u8, nullptr}, "workspace");
      ptr.workspace = l.workspace->as<void>();
    }
    l.run = [k, p, ptr, chain, &lane] { k->launch(p, ptr, lane); };
    return l;
  }

  // Times the kernel that takes the operation with operands of these specs.
  void kernel(const char* name, const Op& op, const Attrs& attrs, const std::vector<Spec>& in,
              Compute compute = Compute::fp32, double flops = 0, const Ints& ints = {}) const {
    std::vector<StorageRef> operands;
    for (const Spec& s : in) operands.push_back(random(s, ints, operands.size()));
    const Launch launch = prepare(op, attrs, operands, compute);
    const double s = seconds(launch.run);
    const std::string shape = in.size() > 1 && in[1].shape.rank == 2
                                  ? to_string(in[0]) + " " + to_string(in[1])
                                  : to_string(in[0]);
    flops > 0 ? print_flops(name, shape, flops, s) : print(name, shape, launch.bytes, s);
    if (launch.workspace)
      fmt::print("{:<28}workspace {:.1f} MiB\n", "",
                 static_cast<double>(launch.workspace->bytes) / (1 << 20));
  }

 private:
  const Kernel* find(const Problem& p) const {
    std::string why;
    const Kernel* const k = find_kernel(gpu, p, &why);
    CHECK(k, "{}: no kernel{}", p.op->name, why);
    return k;
  }

  // The chain of this one operation; it must live as long as the problem.
  const Kernel* chain_kernel(ChainProgram& chain, Problem& p) const {
    chain.loads = static_cast<int>(p.in.size());
    chain.instrs.resize(1);
    chain.instrs[0].op = p.op;
    chain.instrs[0].attrs = p.attrs;
    for (std::size_t i = 0; i < p.in.size(); ++i)
      chain.instrs[0].src[i] = static_cast<std::int16_t>(i);
    chain.stores = {static_cast<std::int16_t>(p.in.size())};
    p.chain = &chain;
    return gpu.chain_kernel(chain);
  }
};

// Measures the copy that rates are compared with.
inline void measure_copy(Bench& b) {
  const std::int64_t big = std::int64_t{1} << 28;
  const StorageRef from = b.random({Shape{big}, DType::f32, nullptr}),
                   to = b.gpu.storage(from->spec, "to");
  const Place place = b.gpu.compute_place();
  const double s = b.seconds([&] {
    b.gpu.copy(to->as<void>(), place, from->as<void>(), place, from->bytes,
               b.gpu.lane(LaneKind::compute));
  });
  b.copy_rate = 2 * static_cast<double>(from->bytes) / s;
  b.print("copy", to_string(from->spec), 2 * static_cast<double>(from->bytes), s);
}

}  // namespace supersonic
