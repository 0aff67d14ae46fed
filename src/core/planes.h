// How the planes of a quantized matrix lie in one piece of memory of bytes_of(spec) bytes: one after the other, each at the alignment
// that formats/format.h promises to decoders. A GPU cannot read a float at any other address.
#pragma once
#include "core/storage.h"

namespace supersonic {

Planes planes_in(void* memory, const Spec& spec);
std::size_t plane_bytes(const Spec& spec, int plane);  // of a quantized matrix

}  // namespace supersonic
