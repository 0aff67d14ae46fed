// Writing a model for others: a GGUF file or a Hugging Face folder, streamed tensor by tensor, an
// adapter merged on the way. A tensor that keeps its type and that no adapter changes is copied
// byte for byte; every other one is decoded to fp32, gets scale * B A added, and is rounded once.
// Rotary q and k rows take the order that the container wants (io/qk_layout.h). Callers write into
// a StagedOutput (io/staged_output.h) and compare logits before they commit it.
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "io/adapter.h"
#include "models/model.h"

namespace supersonic::models {

struct ExportOptions {
  // "auto", or one of export_types(). auto keeps each tensor's type; a quantized matrix that an
  // adapter changes becomes q8_0 in a GGUF file, and every quantized one bf16 in a folder (but for
  // gpt-oss's experts, which folders have as MXFP4 too).
  std::string type = "auto";
  const nn::LoraSet* lora = nullptr;                   // merged; null: none
  // The largest file's tensor data. Nothing: a folder's files have up to 5 GiB, a GGUF model is one.
  std::optional<std::uint64_t> shard_bytes;
  std::function<void(std::uint64_t done, std::uint64_t total)>
      progress;  // in bytes written; may be empty
};

struct ExportSummary {
  std::vector<std::string> files;  // GGUF: the model's, the first with its metadata
  std::uint64_t bytes = 0;         // of tensor data
  std::size_t tensors = 0;
  std::map<std::string, std::size_t> types;    // type name -> tensors
  std::map<std::string, std::size_t> encoded;  // those that were not copied byte for byte
  std::size_t copied() const;
};

// Type names that a container can be asked for; "auto" is not among them.
std::vector<std::string> export_types(bool gguf);

// path: the new file; nothing may exist there. With shard_bytes, more than one file where the data
// is larger: PREFIX.gguf becomes PREFIX-00001-of-00003.gguf and so on, as llama.cpp's gguf-split
// names them. Throws Error(failure) for a full disk or a weight
// that the type cannot hold, Error(interrupted) on Ctrl-C; nothing is left under `path` then.
ExportSummary write_gguf_model(const Model& model, const std::string& path,
                               const ExportOptions& options);
// folder: exists and is empty. What was written stays there when this throws.
ExportSummary write_hf_model(const Model& model, const std::string& folder,
                             const ExportOptions& options);

// An adapter with Hugging Face's names and row order (extract_adapter) as llama.cpp takes it beside
// this model's GGUF file.
io::GgufAdapter to_gguf_adapter(const Model& model, io::LoraAdapter adapter);

}  // namespace supersonic::models
