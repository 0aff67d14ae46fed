// Ids back to text. A decoder chain is applied to token strings as the `tokenizers` crate does it;
// `piece` gives the bytes that one token adds to a running text, which is what streaming and
// constrained decoding need.
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/regex.h"
#include "text/tokenizer_spec.h"

namespace supersonic::text {

class Decoder {
 public:
  explicit Decoder(const std::vector<DecodeStep>& steps);
  // The text of the tokens. No steps: joined by spaces, as the crate does.
  std::string decode(std::vector<std::string> tokens) const;
  // Bytes that `token` stands for inside a text (byte tokens and byte-mapped ones may be part of a
  // character).
  std::string piece(std::string_view token) const;
  // What a text loses at its start: at most `count` times `what` (SentencePiece's dummy space).
  struct Trim {
    std::string what;
    size_t count = 0;
  };
  const Trim& leading() const { return leading_; }

 private:
  struct Step {
    DecodeStep spec;
    std::optional<Regex> regex;
  };
  void apply(const Step& step, std::vector<std::string>& tokens) const;
  std::vector<Step> steps_;
  Trim leading_;
};

}  // namespace supersonic::text
