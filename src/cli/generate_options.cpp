#include "cli/generate_options.h"

#include <fmt/core.h>

#include <algorithm>

#include "cli/console.h"

namespace supersonic::cli {
namespace {

constexpr std::int64_t kUsualContext = 4096, kUsualAnswer = 1024;

}  // namespace

void GenerateSettings::options(Options& o) {
  declare_adapter(o);
  o.group("Sampling (defaults: the model's generation_config.json, then these)");
  o.add("temp", sampling.temperature, "Temperature; 0: always the most likely token").range(0, 100);
  o.add("top-k", sampling.top_k, "Keep the k most likely tokens; 0: all").at_least(0);
  o.add("top-p", sampling.top_p,
        "Keep the most likely tokens that together have this probability; 1: all")
      .range(0, 1);
  o.add("min-p", sampling.min_p,
        "Keep tokens with at least this part of the most likely one's probability; 0: all")
      .range(0, 1);
  o.add("repeat-penalty", sampling.repetition_penalty,
        "Divide the logits of tokens that were seen; 1: off")
      .range(0.01, 100);
  o.add("seed", sampling.seed, "Same seed, same text");
  o.add("max-tokens", max_tokens,
        "Most tokens of an answer; -1: until the model ends it or the context is full")
      .letter('n')
      .at_least(-1);
  o.add("stop", stops, "End the answer before this text; may be repeated").value("TEXT");
  o.group("Engine");
  ComputeOptions::options(o);
  declare_device(o);
  o.add("ctx", context,
        "Context in tokens; 0: 4,096, or what the prompt needs, within what the model was trained "
        "for")
      .range(0, 1 << 24);
  declare_kv_type(o, kv_type);
}

void GenerateSettings::model_defaults(Options& o, const text::ModelText& source) {
  const io::GenerationConfig g = source.generation();
  if (g.temperature)
    o.model_default("temp", static_cast<float>(*g.temperature));
  else if (g.do_sample == false)
    o.model_default("temp", 0.0f);
  if (g.top_k)
    o.model_default("top-k", static_cast<int>(std::clamp<std::int64_t>(*g.top_k, 0, 1 << 30)));
  if (g.top_p) o.model_default("top-p", static_cast<float>(*g.top_p));
  if (g.min_p) o.model_default("min-p", static_cast<float>(*g.min_p));
  if (g.repetition_penalty)
    o.model_default("repeat-penalty", static_cast<float>(*g.repetition_penalty));
}

Engine::Engine(GenerateSettings& settings, Options& options)
    : settings_(settings),
      prompter_(settings.model),
      loaded_(settings.load()),
      taken_(settings.backend()),
      executor_(settings.make_executor(loaded_.model)) {
  settings.model_defaults(options, prompter_.source());
  options_.sampling = settings.sampling;
  options_.max_tokens = settings.max_tokens;
  options_.stops = settings.stops;
  options_.stop_ids = prompter_.source().stop_ids(prompter_.tokenizer());
  load_seconds_ = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
}

void Engine::reserve(std::int64_t prompt_tokens) {
  if (session_) return;
  const std::int64_t trained = loaded_.model.config.max_position_embeddings;
  std::int64_t context = settings_.context;
  if (context > trained)
    log_warning(
        "--ctx {}: the model was trained for {} tokens; what it says beyond them is seldom of use",
        context, trained);
  if (context == 0) {
    const std::int64_t answer =
        options_.max_tokens >= 0 ? std::min(options_.max_tokens, trained) : kUsualAnswer;
    context = std::min(trained, std::max(kUsualContext, prompt_tokens + answer));
  }
  infer::SessionOptions o;
  o.compute = settings_.resolve(loaded_.model);
  o.context = context;
  o.kv_type = kv_type_of(settings_.kv_type, o.compute);
  o.lora = loaded_.lora();
  session_ = std::make_unique<infer::Session>(loaded_.model, executor_, o);
  generator_ =
      std::make_unique<infer::Generator>(loaded_.model, *session_, prompter_.tokenizer(), options_);
  log_detail("{}: {} parameters, {} arithmetic, context {}", settings_.model,
             loaded_.model.parameters(), name_of(o.compute), context);
}

infer::Generation Engine::answer(std::span<const std::int32_t> prompt,
                                 const infer::Generator::Show& show, bool reuse) {
  reserve(static_cast<std::int64_t>(prompt.size()));
  generator_->options() = options_;
  return generator_->run(prompt, show, reuse);
}

std::string timings_text(const infer::Generation& g) {
  return fmt::format(
      "prompt {} tokens{}, {:.1f} tokens/s; answer {} tokens, {:.1f} tokens/s; first token after "
      "{:.0f} ms",
      g.prompt_tokens, g.reused_tokens ? fmt::format(" ({} cached)", g.reused_tokens) : "",
      g.prompt_rate(), g.ids.size(), g.decode_rate(), 1e3 * g.prompt_seconds);
}

}  // namespace supersonic::cli
