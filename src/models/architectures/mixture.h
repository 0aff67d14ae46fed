// What GGUF files say about a mixture of experts.
#pragma once
#include "core/error.h"
#include "io/architecture.h"
#include "io/gguf.h"
#include "io/gguf_writer.h"

namespace supersonic::io {

inline void experts_from_gguf(ModelConfig& c, const GgufFile& file, const std::string& prefix) {
  c.experts.count = file.get_i64(prefix + "expert_count");
  c.experts.used = file.get_i64(prefix + "expert_used_count");
  c.experts.width = file.get_i64(prefix + "expert_feed_forward_length", c.intermediate_size);
  for (const char* key : {"expert_shared_count", "expert_group_count"})
    CHECK_FILE(file.get_i64(prefix + key, 0) == 0, "{}: {}{} is {}, which this program cannot run",
               file.path(), prefix, key, file.get_i64(prefix + key, 0));
}

inline void experts_to_gguf(const ModelConfig& c, GgufWriter& out, const std::string& prefix) {
  CHECK(c.experts.renormalise && c.experts.dense_layers.empty(),
        "a GGUF file cannot say that experts' weights are not normalised (norm_topk_prob false), "
        "nor that some layers have "
        "no experts; save as a folder instead");
  out.set_u32(prefix + "expert_count", static_cast<std::uint32_t>(c.experts.count));
  out.set_u32(prefix + "expert_used_count", static_cast<std::uint32_t>(c.experts.used));
  if (c.family != "mixtral")
    out.set_u32(prefix + "expert_feed_forward_length", static_cast<std::uint32_t>(c.experts.width));
}

}  // namespace supersonic::io
