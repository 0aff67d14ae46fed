// Generation: prompt ids in, text out, piece by piece. Keeps what the session's cache holds, so
// that a prompt which continues the last one (the next turn of a conversation) is fed from where it
// differs.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "infer/sampler.h"
#include "infer/session.h"
#include "text/tokenizer.h"

namespace supersonic::infer {

struct GenerateOptions {
  SamplerOptions sampling;
  std::int64_t max_tokens = -1;        // -1: until the model ends its answer or the context is full
  std::vector<std::string> stops;      // strings that end the answer; not part of it
  std::vector<std::int32_t> stop_ids;  // tokens that do
  bool show_special = false;           // special tokens appear in the text
};

enum class Finish { stop, length, interrupted };
std::string_view name_of(Finish finish);

struct Generation {
  std::string text;
  std::vector<std::int32_t> ids;  // what was generated, without the token that ended it
  std::int64_t prompt_tokens = 0, reused_tokens = 0;  // reused: found in the cache
  double prompt_seconds = 0, decode_seconds = 0;      // until the first token is known; after it
  Finish finish = Finish::stop;
  double prompt_rate() const { return per_second(prompt_tokens - reused_tokens, prompt_seconds); }
  double decode_rate() const {
    return per_second(static_cast<std::int64_t>(ids.size()) - 1, decode_seconds);
  }

 private:
  static double per_second(std::int64_t n, double seconds) {
    return n > 0 && seconds > 0 ? static_cast<double>(n) / seconds : 0;
  }
};

class Generator {
 public:
  Generator(const models::Model& model, Session& session, const text::Tokenizer& tokenizer,
            GenerateOptions options);
  GenerateOptions& options() { return options_; }

  // show: receives the answer as it grows, in whole characters. reuse: keep what the cache has in
  // common with the prompt. An interrupt (core/interrupt.h) ends the answer early. Throws
  // Error(usage) when the prompt does not fit the context.
  using Show = std::function<void(std::string_view)>;
  Generation run(std::span<const std::int32_t> prompt, const Show& show = {}, bool reuse = false);

 private:
  std::size_t keep_common(std::span<const std::int32_t> prompt, bool reuse);

  const models::Model& model_;
  Session& session_;
  const text::Tokenizer& tokenizer_;
  GenerateOptions options_;
  std::vector<std::int32_t> cached_;  // the tokens that the session holds
};

}  // namespace supersonic::infer
