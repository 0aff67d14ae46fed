// What a model file holds, for GGUF and for Hugging Face folders alike: the tensors with types and
// sizes, the numbers of the architecture where it is one that this engine runs, and the metadata as
// text.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/shape.h"
#include "io/model_config.h"

namespace supersonic::cli {

struct ListedTensor {
  std::string name, type;  // type: "q4_1", "bf16"
  Shape shape;
  std::uint64_t bytes = 0;
};

struct TypeTotal {
  std::string type;
  std::uint64_t tensors = 0, parameters = 0, bytes = 0;
};

struct ModelListing {
  std::string path, name, container;  // container: "GGUF v3", "safetensors"
  std::string architecture;           // as the file calls it
  std::optional<io::ModelConfig>
      config;  // empty: not an architecture that runs here; `unsupported` says why
  std::string unsupported;
  std::vector<ListedTensor> tensors;
  std::vector<std::pair<std::string, std::string>> metadata;   // values shortened to one line
  std::vector<std::pair<std::string, std::string>> templates;  // chat templates: name, text

  std::uint64_t parameters() const;
  std::uint64_t bytes() const;
  std::vector<TypeTotal> types() const;  // most bytes first
};

// path: a GGUF file, or a folder with config.json and safetensors. Throws Error(bad_file).
ModelListing list_model(const std::string& path);

}  // namespace supersonic::cli
