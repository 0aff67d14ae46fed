// Normalizers: text to text before pre-tokenization. Origins follow the text through every step;
// what mixes trusted and untrusted bytes becomes untrusted.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "text/charsmap.h"
#include "text/normalizer_steps.h"
#include "text/origin.h"
#include "text/regex.h"
#include "text/tokenizer_spec.h"

namespace supersonic::text {

class Normalizer {
 public:
  explicit Normalizer(const std::vector<NormalizerStep>& steps);
  bool empty() const { return steps_.empty(); }
  // Changes `text` (valid UTF-8) in place, and its origins with it; null: they are not followed.
  void apply(std::string& text, Origins* origins) const;

 private:
  struct Step {
    NormalizerStep spec;
    std::optional<Regex> regex;
    std::optional<Charsmap> charsmap;
    AsciiTable ascii{};  // bert
  };
  std::vector<Step> steps_;
};

}  // namespace supersonic::text
