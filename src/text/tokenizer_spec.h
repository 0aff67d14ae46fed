// What a tokenizer is, as plain data: the steps of its pipeline with their parameters. Read from
// tokenizer.json or from GGUF metadata, compiled by Tokenizer, written back as tokenizer.json or as
// GGUF arrays. Order of work: raw added tokens, normalizers, normalized added tokens,
// pre-tokenizers, BPE, prefix and suffix ids.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace supersonic::text {

struct AddedToken {
  int32_t id = -1;
  std::string content;
  bool single_word = false, lstrip = false, rstrip = false, normalized = false, special = false;
};

struct Pattern {  // a literal string or a regular expression (Oniguruma, Ruby syntax)
  std::string text;
  bool regex = false;
};

struct NormalizerStep {
  enum Kind {
    nfc,
    nfd,
    nfkc,
    nfkd,
    lowercase,
    strip,
    strip_accents,
    prepend,
    replace,
    byte_level
  } kind;
  Pattern pattern;                 // replace
  std::string content;             // prepend, replace
  bool left = true, right = true;  // strip
};

enum class Behavior { removed, isolated, merged_with_previous, merged_with_next, contiguous };
enum class PrependScheme { first, never, always };

struct PreStep {
  enum Kind {
    split,
    byte_level,
    metaspace,
    digits,
    punctuation,
    whitespace,
    whitespace_split
  } kind;
  Pattern pattern;  // split
  Behavior behavior = Behavior::isolated;
  bool invert = false;                              // split
  bool add_prefix_space = false, use_regex = true;  // byte_level
  bool individual = false;                          // digits
  std::string replacement = "\xE2\x96\x81";         // metaspace
  PrependScheme prepend = PrependScheme::always;
  bool split_words = true;
};

struct DecodeStep {
  enum Kind { byte_level, replace, byte_fallback, fuse, strip, metaspace, suffix } kind;
  Pattern pattern;      // replace
  std::string content;  // replace; strip: the character; metaspace: the replacement; suffix: the
                        // end-of-word suffix
  uint32_t start = 0, stop = 0;                   // strip
  PrependScheme prepend = PrependScheme::always;  // metaspace
};

struct MergeRule {
  int32_t left, right, result;
  uint32_t rank;  // low first; equal ranks: leftmost first
};

struct BpeSpec {
  std::vector<std::string> tokens;  // by id; an empty string is a hole
  std::vector<float> scores;        // by id or empty (SentencePiece)
  std::vector<MergeRule> merges;
  std::string unk_token, subword_prefix, word_suffix;
  bool fuse_unk = false, byte_fallback = false, ignore_merges = false;
};

struct TokenizerSpec {
  std::vector<AddedToken> added;
  std::vector<NormalizerStep> normalizers;
  std::vector<PreStep> pre_steps;
  BpeSpec model;
  std::vector<DecodeStep> decoders;
  std::vector<int32_t> prefix, suffix;  // ids around a text when special tokens are added
  int32_t bos = -1, eos = -1, eot = -1, unk = -1, pad = -1;
  std::string pre;  // GGUF's name of the pre-tokenizer; empty when none is known
};

}  // namespace supersonic::text
