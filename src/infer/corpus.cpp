#include "infer/corpus.h"

#include <algorithm>

#include "core/error.h"
#include "text/model_text.h"
#include "text/tokenizer.h"

namespace supersonic::infer {

Corpus::Corpus(const std::string& model, std::string_view text, PerplexityOptions options)
    : options_(options) {
  const text::Tokenizer tokenizer = text::ModelText(model).tokenizer();
  tokens_ = tokenizer.encode(text);
  if (options_.llamacpp && tokenizer.adds_bos()) options_.bos = tokenizer.bos();
  windows_ = perplexity_windows(static_cast<std::int64_t>(tokens_.size()), options_);
  if (windows_.empty())
    fail(ErrorKind::usage,
         "the text has {} tokens, a chunk {}: give a longer text or a smaller --ctx",
         tokens_.size(), options_.context);
}

std::span<const std::int32_t> Corpus::ids(std::size_t window) {
  const Window& w = windows_[window];
  ids_.assign(tokens_.begin() + w.begin, tokens_.begin() + w.begin + w.size);
  if (options_.bos >= 0) ids_[0] = options_.bos;
  return ids_;
}

std::span<const std::int32_t> Corpus::labels(std::size_t window) {
  const Window& w = windows_[window];
  labels_.assign(static_cast<std::size_t>(w.size), -1);
  for (std::int64_t i = w.first_scored; i + 1 < w.size; ++i) labels_[i] = tokens_[w.begin + i + 1];
  return labels_;
}

}  // namespace supersonic::infer
