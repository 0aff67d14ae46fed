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

// The byte of "<0xXX>", or -1.
int byte_of_token(std::string_view token);

class Decoder {
 public:
  explicit Decoder(const std::vector<DecodeStep>& steps);
  // The text of the tokens. No steps: joined by spaces, as the crate does.
  std::string decode(std::vector<std::string> tokens) const;
  // Bytes that `token` stands for inside a text (byte tokens and byte-mapped ones may be part of a
  // character).
  std::string piece(std::string_view token) const;

 private:
  friend class Decoding;
  struct Step {
    DecodeStep spec;
    std::optional<Regex> regex;
  };
  static void apply(const Step& step, std::vector<std::string>& tokens);
  std::vector<Step> steps_;
};

// A decoding under way: tokens go in one by one, and text comes out as soon as no later token can
// change it. Every piece that comes out is whole characters, and all pieces together are what
// Decoder::decode makes of all tokens, except that a run of byte tokens which turns out not to be
// UTF-8 has already given out what was. A copy decodes on by itself.
class Decoding {
 public:
  explicit Decoding(const Decoder& decoder);  // which outlives this
  void push(std::string_view token, std::string& out);
  void finish(std::string& out);

 private:
  struct Stage {
    std::string held;
    size_t seen = 0;      // tokens that came in
    bool joined = false;  // what comes in are parts of one token, since an earlier step joins them
    uint32_t cut = 0;     // strip of a joined token: how often it has cut
  };
  void feed(size_t at, std::string_view token, std::string& out);
  void feed_joined(size_t at, std::string_view part, std::string& out);
  void feed_bytes(size_t at, std::string_view token, std::string& out);
  void strip_joined(size_t at, std::string_view part, std::string& out);
  void flush(size_t at, std::string& out);
  const Decoder* decoder_;
  std::vector<Stage> stages_;
  size_t pushed_ = 0;
};

}  // namespace supersonic::text
