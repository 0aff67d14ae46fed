// The formats of a KV cache that the kernels here know beyond numbers (cache_formats()).
#pragma once
#include <cstdint>

#include "formats/format.h"
#include "formats/fp8.h"
#include "formats/q8_0.h"

namespace supersonic::cuda {

enum class CacheCodes : int { none, fp8, q8_0 };

// none: numbers (no format), or a format that no kernel here reads. A block never crosses a head.
inline CacheCodes cache_codes(const Format* format, std::int64_t head_size) {
  if (!format) return CacheCodes::none;
  if (format->name == formats::Fp8::name) return CacheCodes::fp8;
  return format->name == formats::Q8_0::name && head_size % formats::Q8_0::weights == 0
             ? CacheCodes::q8_0
             : CacheCodes::none;
}

}  // namespace supersonic::cuda
