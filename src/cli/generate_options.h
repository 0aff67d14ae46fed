// What run and chat share: the options of sampling and of the session, with the model's own
// defaults, and the objects that they lead to, in the order in which they must live.
#pragma once
#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "cli/command.h"
#include "cli/model_options.h"
#include "core/device.h"
#include "infer/generate.h"
#include "infer/prompt.h"

namespace supersonic::cli {

struct GenerateSettings : ModelOptions {
  infer::SamplerOptions sampling;
  std::int64_t max_tokens = -1, context = 0;
  std::vector<std::string> stops;
  std::string kv_type = "auto";
  void options(Options& o);
  // The defaults of generation_config.json, below everything that was given.
  void model_defaults(Options& o, const text::ModelText& source);
};

// A model ready to answer.
class Engine {
 public:
  Engine(GenerateSettings& settings, Options& options);
  const infer::Prompter& prompter() const { return prompter_; }
  // Makes the context: as long as asked, or 4,096 tokens, or what a prompt of this length and its
  // answer need. Else the first answer does.
  void reserve(std::int64_t prompt_tokens);
  infer::Generation answer(std::span<const std::int32_t> prompt,
                           const infer::Generator::Show& show = {}, bool reuse = false);
  infer::GenerateOptions& options() { return options_; }
  std::int64_t capacity() const { return session_ ? session_->capacity() : 0; }
  std::int64_t held() const { return session_ ? session_->position() : 0; }  // tokens in the cache
  double load_seconds() const { return load_seconds_; }
  std::uint64_t taken_bytes() const { return taken_.bytes(); }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  const GenerateSettings& settings_;
  infer::Prompter prompter_;
  LoadedModel loaded_;
  TakenMemory taken_;
  Executor executor_;
  infer::GenerateOptions options_;
  std::unique_ptr<infer::Session> session_;
  std::unique_ptr<infer::Generator> generator_;
  double load_seconds_ = 0;
};

// "prompt 5 tokens, 120 tokens/s; answer 64 tokens, 50.2 tokens/s"
std::string timings_text(const infer::Generation& g);

}  // namespace supersonic::cli
