// Normalizers: text to text before pre-tokenization. A trust mask (one byte per byte of text, 1 = may hold special tokens) follows
// the text through every step; what mixes trusted and untrusted bytes becomes untrusted.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "text/regex.h"
#include "text/tokenizer_spec.h"

namespace supersonic::text {

using TrustMask = std::vector<uint8_t>;

class Normalizer {
 public:
  explicit Normalizer(const std::vector<NormalizerStep>& steps);
  bool empty() const { return steps_.empty(); }
  // Changes text (valid UTF-8) in place, and the mask with it when there is one.
  void apply(std::string& text, TrustMask* mask) const;

 private:
  struct Step {
    NormalizerStep spec;
    std::optional<Regex> regex;
  };
  std::vector<Step> steps_;
};

}  // namespace supersonic::text
