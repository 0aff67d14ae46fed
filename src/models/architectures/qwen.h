// Qwen's way to say which layers slide: use_sliding_window, and either layer_types or the number of
// layers that come before the sliding ones. GGUF files cannot say it.
#pragma once

#include "io/architecture.h"
#include "io/json_fields.h"
#include "io/json_tree.h"

namespace supersonic::io {

inline void read_qwen_window(ModelConfig& c, const JsonFields& f) {
  if (!f.boolean("use_sliding_window").value_or(false)) return;
  std::int64_t window = 4096;
  if (f.value().contains("sliding_window"))
    window = f.integer("sliding_window", 0, std::int64_t{1} << 31).value_or(0);
  const auto first = f.integer("max_window_layers", 0, std::int64_t{1} << 31).value_or(28);
  read_sliding_layers(c, f, window, [&](std::int64_t layer) { return layer >= first; });
}

inline void write_qwen_window(const ModelConfig& c, JsonTree& j) {
  j.set("sliding_window", c.sliding_window ? JsonTree(c.sliding_window) : nullptr);
  j.set("use_sliding_window", c.sliding_window > 0);
  if (c.sliding_window == 0) return;
  write_layer_types(c, j);
  std::int64_t first = 0;
  while (!c.slides(first)) ++first;
  j.set("max_window_layers", first);
}

}  // namespace supersonic::io
