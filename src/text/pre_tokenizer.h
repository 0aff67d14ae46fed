// Pre-tokenizers: a text becomes the words that BPE sees. Each step cuts its piece and hands the
// parts on, so nothing is collected; only steps that change the text (prefix space, Metaspace, byte
// mapping before another step) copy it.
#pragma once
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "text/origin.h"
#include "text/regex.h"
#include "text/scanners.h"
#include "text/tokenizer_spec.h"

namespace supersonic::text {

// Receives the words, in order.
class WordSink {
 public:
  virtual void word(Stretch word) = 0;

 protected:
  ~WordSink() = default;
};

class PreTokenizer {
 public:
  // With raw_bytes the last step, when it is ByteLevel, leaves the bytes unmapped: the model then
  // looks bytes up directly.
  PreTokenizer(std::vector<PreStep> steps, bool raw_bytes);
  bool asks_for_start() const;  // at_start matters
  // at_start: the text begins where the whole input begins (Metaspace "first").
  void split(Stretch in, bool at_start, WordSink& sink) const;

 private:
  struct Step {
    PreStep spec;
    Scanner scanner = nullptr;
    Matcher matcher = nullptr;
    std::optional<Regex> regex;
  };
  void run(size_t step, Stretch in, bool at_start, WordSink& sink) const;
  void cut(size_t step, Stretch in, bool at_start, WordSink& sink, Behavior behavior) const;
  void scan(size_t step, Stretch in, bool at_start, WordSink& sink, Scanner scanner) const;
  void scripts(size_t next, Stretch in, bool at_start, WordSink& sink) const;
  void fixed_length(size_t next, Stretch in, bool at_start, WordSink& sink, uint32_t length) const;
  void metaspace(size_t step, Stretch in, bool at_start, WordSink& sink) const;
  void byte_level(size_t step, Stretch in, bool at_start, WordSink& sink) const;

  std::vector<Step> steps_;
  bool raw_bytes_;
};

}  // namespace supersonic::text
