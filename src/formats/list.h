// The block codecs, each in a header of its own: the registry makes their Format records from this
// list, the GPU its decoders. A new codec is one header and one line here.
#pragma once
#include "formats/q2_k.h"
#include "formats/q3_k.h"
#include "formats/q4_0.h"
#include "formats/q4_1.h"
#include "formats/q4_k.h"
#include "formats/q5_0.h"
#include "formats/q5_1.h"
#include "formats/q5_k.h"
#include "formats/q6_k.h"
#include "formats/q8_0.h"

namespace supersonic::formats {

template <class... Codecs>
struct CodecList {};
using BlockCodecs = CodecList<Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K>;

}  // namespace supersonic::formats
