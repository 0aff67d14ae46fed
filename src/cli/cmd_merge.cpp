// supersonic merge MODEL --adapter DIR -o OUT: a model with its LoRA adapter added into the
// weights.
#include "cli/command.h"
#include "cli/export_job.h"
#include "cli/model_options.h"
#include "core/error.h"
#include "models/adapter.h"

namespace supersonic::cli {
namespace {

struct Merge {
  std::string model, adapter;
  ExportJob job;
  bool json = false;

  static constexpr About about{
      .summary = "Merge a LoRA adapter into its model",
      .usage = "MODEL --adapter DIR -o OUT [--to hf|gguf] [--type TYPE]",
      .details =
          "Every adapted matrix is decoded to fp32, scale * B A is added, and the sum is rounded "
          "once to --type. With --type auto, "
          "tensors that the adapter does not change keep their type and are copied byte for byte; "
          "changed ones of a quantized model "
          "become q8_0 in a GGUF file (4 bits would round away much of what was learned), and all "
          "of them bf16 in a folder. Before "
          "OUT takes its name, its logits are compared with those of the model beside its adapter, "
          "in fp32.",
      .examples =
          "supersonic merge model.gguf --adapter out/ -o merged/\nsupersonic merge model.gguf "
          "--adapter out/ -o merged.gguf --type q4_k",
      .group = CommandGroup::work};

  void options(Options& o) {
    declare_model(o, model);
    o.add("adapter", adapter, "PEFT folder, GGUF adapter, or the folder of a training run")
        .letter('a')
        .value("DIR")
        .model()
        .required();
    o.add("output", job.output, "What to write: a name that ends in .gguf, or a folder")
        .letter('o')
        .value("OUT")
        .required();
    job.options(o);
    declare_json(o, json);
  }

  int run(Context&) {
    job.json = json;
    models::Model loaded = load_and_warn(model);
    const nn::LoraSet lora =
        models::attach_adapter(loaded, models::read_adapter(adapter, loaded), adapter);
    return job.export_model(loaded, &lora, {model, adapter});
  }
};

}  // namespace

COMMAND(merge, Merge)

}  // namespace supersonic::cli
