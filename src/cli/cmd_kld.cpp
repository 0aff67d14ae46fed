// supersonic kld MODEL --reference MODEL2 -f FILE: what quantizing or changing a model did to its
// distribution. Both models score the same windows in one process; nothing is kept but one number
// set a token.
#include <fmt/core.h>

#include <algorithm>

#include "backend/cpu/pool.h"
#include "cli/command.h"
#include "cli/console.h"
#include "cli/json_writer.h"
#include "cli/model_options.h"
#include "cli/progress.h"
#include "core/error.h"
#include "core/interrupt.h"
#include "infer/corpus.h"
#include "infer/divergence.h"

namespace supersonic::cli {
namespace {

struct Kld : ModelOptions {
  std::string reference, file, reference_compute, convention = "llamacpp";
  std::int64_t context = 512;
  bool json = false;

  static constexpr About about{
      .summary = "Measure how far a model's predictions are from another's",
      .usage = "MODEL --reference MODEL2 -f FILE",
      .details =
          "Kullback-Leibler divergence of MODEL from the reference over a text, in nats a token, "
          "by llama.cpp's convention unless "
          "told otherwise. The two must have one tokenizer. Without --reference, MODEL is compared "
          "with itself: without the adapter, "
          "or in --reference-compute.",
      .examples =
          "supersonic kld model-q4_1.gguf --reference model-f16.gguf -f wiki.txt\n"
          "supersonic kld model.gguf --compute int8 --reference-compute fp32 -f wiki.txt --json",
      .group = CommandGroup::measure};

  void options(Options& o) {
    declare_model(o);
    o.add("reference", reference, "The model to compare with")
        .value("MODEL")
        .model()
        .shown("MODEL itself");
    o.add("file", file, "The text; - reads standard input").letter('f').value("FILE").required();
    declare_adapter(o);
    o.add("ctx", context, "Tokens of a chunk").range(2, 1 << 20);
    o.add("convention", convention, "How chunks are scored").choices({"llamacpp", "hf"});
    ComputeOptions::options(o);
    declare_device(o);
    o.add("reference-compute", reference_compute, "Arithmetic of the reference")
        .choices({"auto", "fp32", "bf16", "int8", "fp8"})
        .shown("as --compute");
    declare_json(o, json);
  }

  int run(Context&) {
    infer::Corpus corpus(model, read_input(file, infer::Corpus::kMaxBytes),
                         {context, convention == "llamacpp"});
    LoadedModel loaded = load();
    ModelOptions other = *this;
    other.model = reference.empty() ? model : reference, other.adapter.clear();
    if (!reference_compute.empty()) other.compute = reference_compute;
    LoadedModel base = other.load();
    const std::int64_t vocab = loaded.model.config.vocab_size;
    if (base.model.config.vocab_size != vocab)
      fail(ErrorKind::usage, "kld: {} has {} tokens, {} has {}: the two must have one tokenizer",
           model, vocab, other.model, base.model.config.vocab_size);
    Executor executor = make_executor(loaded.model);
    models::make_resident(base.model, executor.backend());
    infer::Scorer scorer(loaded.model, executor, resolve(loaded.model), context, true,
                         loaded.lora());
    infer::Scorer truth(base.model, executor, other.resolve(base.model), context, true);
    compare(corpus, scorer, truth);
    return 0;
  }

  void compare(infer::Corpus& corpus, infer::Scorer& scorer, infer::Scorer& truth) const {
    cpu::Pool pool(thread_count());
    std::vector<infer::TokenDivergence> all;
    Progress progress("comparing", "tok",
                      corpus.windows().size() * static_cast<std::size_t>(context));
    for (std::size_t i = 0; i < corpus.windows().size(); ++i) {
      const auto ids = corpus.ids(i), labels = corpus.labels(i);
      scorer.nll(ids, labels);
      truth.nll(ids, labels);
      const std::int64_t first = corpus.windows()[i].first_scored, count = corpus.scored(i);
      const std::size_t at = all.size();
      all.resize(at + static_cast<std::size_t>(count));
      pool.ranges(count, 1, [&](std::int64_t begin, std::int64_t end, int) {
        for (std::int64_t k = begin; k < end; ++k)
          all[at + k] = infer::compare_logits(scorer.logits(first + k), truth.logits(first + k),
                                              labels[first + k]);
      });
      check_interrupt();
      progress.update((i + 1) * static_cast<std::size_t>(context));
    }
    progress.finish();
    report(infer::summarise(all));
  }

  void report(const infer::DivergenceSummary& s) const {
    if (json) return report_json(s);
    print(fmt::format("KL divergence over {} tokens ({} convention, context {})\n", s.tokens,
                      convention, context));
    print(fmt::format("  {:<10}{:>12.6f}   median {:.6f}   max {:.6f}\n", "mean", s.mean, s.median,
                      s.max));
    print(fmt::format("  {:<10}{:>12.6f}   99 % {:.6f}   99.9 % {:.6f}\n", "90 %", s.p90, s.p99,
                      s.p999));
    print(fmt::format("  {:<10}{:>10.2f} %   of the most likely tokens agree\n", "same top",
                      100 * s.same_top));
    print(fmt::format(
        "  {:<10}{:>10.2f} %   of probability, root mean square, for the token that came\n",
        "change", 100 * s.rms_probability_change));
    print(fmt::format("  {:<10}{:>12.4f}   reference {:.4f}\n", "perplexity", s.ppl,
                      s.reference_ppl));
  }

  void report_json(const infer::DivergenceSummary& s) const {
    JsonWriter w;
    w.begin_object()
        .key("mean")
        .value(s.mean)
        .key("median")
        .value(s.median)
        .key("p90")
        .value(s.p90)
        .key("p99")
        .value(s.p99);
    w.key("p999").value(s.p999).key("max").value(s.max).key("same_top").value(s.same_top);
    w.key("rms_probability_change")
        .value(s.rms_probability_change)
        .key("ppl")
        .value(s.ppl)
        .key("reference_ppl")
        .value(s.reference_ppl);
    print(w.key("tokens").value(s.tokens).key("convention").value(convention).end_object().text() +
          "\n");
  }
};

}  // namespace

COMMAND(kld, Kld)

}  // namespace supersonic::cli
