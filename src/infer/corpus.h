// A text cut for scoring: its tokens, the windows of a perplexity run over them, and each window's
// inputs and labels.
#pragma once
#include <string>
#include <vector>

#include "infer/score.h"

namespace supersonic::infer {

class Corpus {
 public:
  static constexpr std::size_t kMaxBytes = std::size_t{1} << 30;
  // Tokenizes with the model's own tokenizer. Where the model begins a text with BOS, options.bos
  // follows from it. Throws Error(usage) when the text is shorter than one window.
  Corpus(const std::string& model, std::string_view text, PerplexityOptions options);

  const std::vector<Window>& windows() const { return windows_; }
  std::span<const std::int32_t> ids(std::size_t window);  // valid until the next call
  std::span<const std::int32_t> labels(
      std::size_t window);  // of position i: the token that follows, or -1
  std::int64_t scored(std::size_t window) const {
    return windows_[window].size - 1 - windows_[window].first_scored;
  }

 private:
  std::vector<std::int32_t> tokens_, ids_, labels_;
  std::vector<Window> windows_;
  PerplexityOptions options_;
};

}  // namespace supersonic::infer
