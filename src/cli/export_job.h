// What convert and merge share: their options about the output, and the run: write beside the final
// name, compare logits with the source, take the name, report.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "cli/command.h"
#include "io/adapter.h"
#include "models/export.h"

namespace supersonic::cli {

struct ExportJob {
  std::string output, to = "auto", type = "auto", device = "auto";
  std::optional<int> threads;
  std::optional<Bytes> shard_size;
  bool force = false, verify = true, json = false;

  void options(Options& o);  // all but output
  bool gguf() const;         // by --to, else by the output's name

  // The model, with an adapter merged where `lora` is given. inputs: paths that the output must not
  // replace.
  int export_model(models::Model& model, const nn::LoraSet* lora,
                   const std::vector<std::string>& inputs) const;
  // The adapter alone, as a GGUF adapter or a PEFT folder.
  int export_adapter(models::Model& base, const io::LoraAdapter& adapter,
                     const std::vector<std::string>& inputs) const;

 private:
  Backend& prepare_backend() const;  // sets the CPU's threads
  models::ExportSummary write_model(const models::Model& model, const nn::LoraSet* lora,
                                    const std::string& path) const;
};

}  // namespace supersonic::cli
