// OLMo 2: blocks read the residual as it is and are normalised before they are added to it; queries
// and keys are normalised over all heads at once.

#include "core/error.h"
#include "io/architecture.h"
#include "io/gguf.h"
#include "io/gguf_writer.h"
#include "io/json_fields.h"
#include "io/json_tree.h"

namespace supersonic::io {

ARCHITECTURE(olmo2) {
  Architecture a;
  a.hf_class = "Olmo2ForCausalLM", a.model_type = "olmo2", a.gguf = "olmo2";
  a.defaults = {.rms_norm_eps = 1e-5};
  a.describe = [](ModelConfig& c) { c.norms = NormPlace::after, c.qk_norm = QkNorm::projection; };
  a.from_json = [](ModelConfig& c, const JsonFields& f) {
    require_activation(f, "hidden_act", {"silu", "swish"});
    c.qkv_bias = c.o_bias = f.boolean("attention_bias").value_or(false);
  };
  a.to_json = [](const ModelConfig& c, JsonTree& j) { j.set("attention_bias", c.qkv_bias); };
  a.from_gguf = [](ModelConfig& c, const GgufFile& file, const std::string& prefix) {
    if (c.sliding_window > 0)
      fail(ErrorKind::bad_file,
           "{}: {}attention.sliding_window is {}: an OLMo 3, which this program cannot run",
           file.path(), prefix, c.sliding_window);
  };
  return a;
}

}  // namespace supersonic::io
