// The loops of the probe, one set per instruction set. Each returns the operations (or bytes) that it did.
#pragma once
#include <cstddef>
#include <cstdint>

namespace supersonic::cpu {

struct ProbeLoops {
  double (*fp32)(std::int64_t rounds);
  double (*bf16)(std::int64_t rounds);
  double (*int8)(std::int64_t rounds);
  std::uint64_t (*read)(const std::uint8_t* data, std::size_t bytes);  // bytes: a multiple of 512; returns a checksum
};

const ProbeLoops& probe_portable();
const ProbeLoops& probe_avx2();
const ProbeLoops& probe_avx512();

}  // namespace supersonic::cpu
