// supersonic ppl MODEL -f FILE: perplexity of a text, by llama.cpp's convention or by the usual one
// of transformers' users.
#include <fmt/core.h>

#include <cmath>

#include "cli/command.h"
#include "cli/console.h"
#include "cli/json_writer.h"
#include "cli/model_options.h"
#include "cli/progress.h"
#include "core/interrupt.h"
#include "infer/corpus.h"

namespace supersonic::cli {
namespace {

struct Ppl : ModelOptions {
  std::string file, convention = "llamacpp", kv_type = "none";
  std::int64_t context = 512;
  bool json = false;

  static constexpr About about{
      .summary = "Measure a model's perplexity on a text",
      .usage = "MODEL -f FILE",
      .details =
          "The text is cut into chunks of --ctx tokens that do not see each other. llamacpp: the "
          "second half of each chunk is scored, "
          "as llama-perplexity does; hf: all but its first token.",
      .examples =
          "supersonic ppl model.gguf -f wiki.txt\nsupersonic ppl model.gguf --adapter out/ -f "
          "held-out.txt --convention hf --ctx 2048 --json",
      .group = CommandGroup::measure};

  void options(Options& o) {
    declare_model(o);
    o.add("file", file, "The text; - reads standard input").letter('f').value("FILE").required();
    declare_adapter(o);
    o.add("ctx", context, "Tokens of a chunk").range(2, 1 << 20);
    o.add("convention", convention, "How chunks are scored").choices({"llamacpp", "hf"});
    o.add("kv-type", kv_type, "Reads keys and values from a cache of this type; none: as they were computed")
        .choices({"none", "bf16", "f16", "f32", "q8", "fp8"});
    ComputeOptions::options(o);
    declare_device(o);
    declare_json(o, json);
  }

  int run(Context&) {
    infer::Corpus corpus(model, read_input(file, infer::Corpus::kMaxBytes),
                         {context, convention == "llamacpp"});
    LoadedModel loaded = load();
    Executor executor = make_executor(loaded.model);
    infer::Scorer scorer(loaded.model, executor, resolve(loaded.model), context, false,
                         loaded.lora(), cache_type());
    Progress progress("scoring", "tok",
                      corpus.windows().size() * static_cast<std::size_t>(context));
    double nll = 0;
    std::int64_t tokens = 0;
    for (std::size_t i = 0; i < corpus.windows().size(); ++i) {
      nll += scorer.nll(corpus.ids(i), corpus.labels(i));
      tokens += corpus.scored(i);
      check_interrupt();
      progress.update((i + 1) * static_cast<std::size_t>(context),
                      fmt::format("ppl {:.4f}", std::exp(nll / static_cast<double>(tokens))));
    }
    progress.finish();
    report(nll / static_cast<double>(tokens), tokens);
    return 0;
  }

  std::optional<models::TensorType> cache_type() const {
    if (kv_type == "none") return {};
    return kv_type_of(kv_type, Compute::fp32);
  }

  void report(double nll, std::int64_t tokens) const {
    if (!json)
      return print(fmt::format("perplexity {:.4f} ({} tokens scored, {} convention, context {})\n",
                               std::exp(nll), tokens, convention, context));
    JsonWriter w;
    w.begin_object()
        .key("ppl")
        .value(std::exp(nll))
        .key("nll")
        .value(nll)
        .key("tokens")
        .value(tokens);
    print(w.key("convention").value(convention).end_object().text() + "\n");
  }
};

}  // namespace

COMMAND(ppl, Ppl)

}  // namespace supersonic::cli
