// supersonic convert IN OUT: a model in another container or type; an adapter in another container.
#include <filesystem>

#include "cli/command.h"
#include "cli/export_job.h"
#include "cli/model_options.h"
#include "core/error.h"
#include "io/gguf.h"
#include "models/adapter.h"

namespace supersonic::cli {
namespace {

namespace fs = std::filesystem;

bool is_adapter(const std::string& path) {
  if (fs::is_directory(path)) {
    for (const fs::path& folder : {fs::path(path), fs::path(path) / "adapter"})
      if (fs::exists(folder / "adapter_config.json"))
        return !fs::exists(fs::path(path) / "config.json");
    return false;
  }
  return fs::exists(path) && io::is_gguf_adapter(io::GgufFile::open(path));
}

struct Convert {
  std::string input, base;
  ExportJob job;
  bool json = false;

  static constexpr About about{
      .summary = "Write a model or an adapter in another format",
      .usage = "IN OUT [--to gguf|hf] [--type TYPE]",
      .details =
          "IN is a GGUF file or a Hugging Face folder; so is OUT. Tensors "
          "whose type does not change are copied byte for byte. "
          "--type takes the names of llama-quantize: q3_k, q4_k and q5_k "
          "are the mixtures Q3_K_M, Q4_K_M and Q5_K_M, and _s or _l behind "
          "them the small and large ones. In all of them the output layer, "
          "or the embedding where it is both, gets q6_k or q8_0, norms "
          "stay f32, and rows that the blocks do not divide fall back as "
          "llama.cpp's do. mxfp4 (MXFP4_MOE) is for mixtures of experts: "
          "their matrices alone get it, all others q8_0; tq1_0 and tq2_0 "
          "are for models whose weights are ternary. A GGUF model of several files is named by any "
          "of them. Before OUT takes its name, the logits of both "
          "are compared on a fixed text, in fp32; a warning names a better "
          "type where they are over 0.1 nats a token apart (KL).\n\n"
          "IN may also be an adapter: a PEFT folder or a GGUF adapter "
          "becomes the other one; --base names the model that it "
          "belongs to.",
      .examples =
          "supersonic convert ./SmolLM2-135M model.gguf --type "
          "q8_0\nsupersonic convert model.gguf ./folder --type bf16\n"
          "supersonic convert model.gguf big.gguf --shard-size 2GiB\n"
          "supersonic convert out/ adapter.gguf --base model.gguf",
      .group = CommandGroup::work};

  void options(Options& o) {
    o.positional("input", input, "GGUF file, Hugging Face folder, or adapter")
        .value("IN")
        .model()
        .required();
    o.positional("output", job.output, "What to write: a name that ends in .gguf, or a folder")
        .letter('o')
        .value("OUT")
        .required();
    o.add("base", base, "The model of an adapter that is converted").value("MODEL").model();
    job.options(o);
    declare_json(o, json);
  }

  int run(Context&) {
    job.json = json;
    if (!is_adapter(input)) {
      if (!base.empty())
        fail(ErrorKind::usage, "convert: --base is for adapters, and {} is none", input);
      models::Model model = load_and_warn(input);
      return job.export_model(model, nullptr, {input});
    }
    if (base.empty())
      fail(ErrorKind::usage, "convert: {} is an adapter: name its model with --base MODEL", input);
    models::Model model = models::load_model(base);
    return job.export_adapter(model, models::read_adapter(input, model), {input, base});
  }
};

}  // namespace

COMMAND(convert, Convert)

}  // namespace supersonic::cli
