// What a tokenizer is, as plain data: the steps of its pipeline with their parameters. Read from
// tokenizer.json, GGUF metadata or a SentencePiece model, compiled by Tokenizer, written back as
// tokenizer.json or as GGUF arrays. Order of work: raw added tokens, normalizers, normalized added
// tokens, pre-tokenizers, the model's own words to ids, prefix and suffix ids.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace supersonic::text {

struct AddedToken {
  int32_t id = -1;
  std::string content{};
  bool single_word = false, lstrip = false, rstrip = false, normalized = false, special = false;
};

struct Pattern {  // a literal string or a regular expression (Oniguruma, Ruby syntax)
  std::string text{};
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
    byte_level,
    bert,
    nmt,
    charsmap
  } kind;
  Pattern pattern{};               // replace
  std::string content{};           // prepend, replace; charsmap: SentencePiece's compiled map
  bool left = true, right = true;  // strip
  bool clusters = true;            // charsmap: the crate's way; else SentencePiece's
  bool clean = true, cut_han = true, drop_accents = true, lower = true;  // bert
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
    whitespace_split,
    scripts,
    fixed_length
  } kind;
  Pattern pattern{};  // split
  Behavior behavior = Behavior::isolated;
  bool invert = false;                              // split
  bool add_prefix_space = false, use_regex = true;  // byte_level
  bool individual = false;                          // digits
  std::string replacement = "\xE2\x96\x81";         // metaspace
  PrependScheme prepend = PrependScheme::always;
  bool split_words = true;
  uint32_t length = 5;  // fixed_length: characters a piece
};

struct DecodeStep {
  enum Kind {
    byte_level,
    replace,
    byte_fallback,
    fuse,
    strip,
    metaspace,
    suffix,
    word_piece,
    ctc
  } kind;
  Pattern pattern{};      // replace
  std::string content{};  // replace; strip: the character; metaspace: the replacement; suffix: the
                          // end-of-word suffix; word_piece: the prefix; ctc: the padding
  std::string delimiter{};                        // ctc: becomes a space
  bool cleanup = true;                            // word_piece, ctc: no space before punctuation
  uint32_t start = 0, stop = 0;                   // strip
  PrependScheme prepend = PrependScheme::always;  // metaspace
};

struct MergeRule {
  int32_t left, right, result;
  uint32_t rank;  // low first; equal ranks: leftmost first
};

struct ModelSpec {
  enum Kind { bpe, unigram, word_piece, word_level } kind = bpe;
  std::vector<std::string> tokens;  // by id; an empty string is a hole
  std::vector<double> scores;       // by id or empty (SentencePiece); Unigram: log probabilities
  std::vector<MergeRule> merges;    // BPE
  std::string unk_token, subword_prefix, word_suffix;
  bool fuse_unk = false, byte_fallback = false, ignore_merges = false;
  int32_t unk_id = -1;          // Unigram
  bool float_sums = false;      // Unigram: as SentencePiece adds scores, which decides ties
  std::vector<uint8_t> hidden;  // by id or empty; 1: no text becomes this token
  uint32_t longest_word = 100;  // WordPiece: characters; a longer word is unknown
};

struct TokenizerSpec {
  std::vector<AddedToken> added;
  std::vector<NormalizerStep> normalizers;
  std::vector<PreStep> pre_steps;
  ModelSpec model;
  std::vector<DecodeStep> decoders;
  std::vector<int32_t> prefix, suffix;  // ids around a text when special tokens are added
  int32_t bos = -1, eos = -1, eot = -1, unk = -1, pad = -1;
  std::string pre;  // GGUF's name of the pre-tokenizer; empty when none is known
};

}  // namespace supersonic::text
