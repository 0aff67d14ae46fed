// Text to token ids and back: BPE, Unigram, WordPiece and WordLevel, from tokenizer.json, from GGUF
// metadata or from a SentencePiece model, with the ids of the `tokenizers` package. Text that is
// not UTF-8 is repaired first: each maximal invalid part counts as U+FFFD, which is what that
// package gets from Python's errors="replace". A Tokenizer is immutable; all calls may run on
// several threads at once.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/encode.h"

namespace supersonic::text {

struct TokenizerSpec;
class Decoding;

// The tokenizer keys of a GGUF file, as views into it (tokenizer.ggml.* without the prefix). Ids of
// -1 are absent.
struct GgufVocab {
  std::string_view model, pre, name;         // name: general.name
  std::span<const std::string_view> tokens;  // by id
  std::span<const float> scores;             // by id, or empty
  std::span<const int32_t>
      token_type;  // by id, or empty: 1 normal 2 unknown 3 control 4 user-defined 5 unused 6 byte
  std::span<const std::string_view> merges;  // "left right"
  std::string_view charsmap;                 // precompiled_charsmap, or empty
  int32_t bos_id = -1, eos_id = -1, eot_id = -1, eom_id = -1, unk_id = -1, pad_id = -1, sep_id = -1,
          cls_id = -1;
  std::optional<bool> add_bos, add_eos, add_space_prefix;
  std::optional<bool> merge_spaces;              // remove_extra_whitespaces
  std::optional<bool> lowercase, strip_accents;  // normalizer.…
};

// The same, owned: what a GGUF file is written from.
struct GgufVocabData {
  std::string model, pre;
  std::vector<std::string> tokens;
  std::vector<float> scores;
  std::vector<int32_t> token_type;
  std::vector<std::string> merges;
  int32_t bos_id = -1, eos_id = -1, eot_id = -1, unk_id = -1, pad_id = -1;
  bool add_bos = false, add_eos = false, add_space_prefix = false;
};

// The files of a Hugging Face folder that hold a tokenizer.
struct HfTokenizerFiles {
  std::string tokenizer_json, tokenizer_config_json, special_tokens_map_json;
};

// The files of a folder that has no tokenizer.json, for byte-level BPE; all but the first two may
// be empty.
struct HfVocabFiles {
  std::string vocab, merges;                     // vocab.json, merges.txt
  std::string config;                            // tokenizer_config.json
  std::string added_tokens, special_tokens_map;  // the .json files of old folders
};

struct EncodeOptions {
  bool add_special = true;  // the ids around a text that the model expects (BOS …)
  bool parse_special =
      false;  // special tokens written in the text become their ids; else they are plain text
};

class Tokenizer {
 public:
  // Throw Error(bad_file) that names the field. `origin` (a file name) begins every message.
  // config: tokenizer_config.json, or empty; it says which tokens are BOS, EOS and padding.
  static Tokenizer from_json(std::string_view text, std::string_view config = {},
                             std::string_view origin = "tokenizer.json");
  static Tokenizer from_gguf(const GgufVocab& vocab, std::string_view origin = "GGUF");
  // model: the bytes of a SentencePiece tokenizer.model file.
  static Tokenizer from_sentence_piece(std::string_view model, std::string_view config = {},
                                       std::string_view origin = "tokenizer.model");
  // The class that tokenizer_config.json names decides how text is cut. folder: for messages.
  static Tokenizer from_vocab(const HfVocabFiles& files, std::string_view folder);
  explicit Tokenizer(TokenizerSpec spec);
  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;

  std::vector<int32_t> encode(std::string_view text, const EncodeOptions& options = {}) const;
  // `text` without ids around it (a chat template writes its own BOS), where a special token is
  // taken only from bytes that are all trusted; words and merges cross the spans' edges. The spans
  // cover the text in order. Of each id, `ends` says where its last byte ends in `text` as it was
  // given: normalizers, repairs and cuts inside a character are traced back; what was put in front
  // (SentencePiece's space) counts with the byte behind it, what vanished (stripped, no such token)
  // with the id before.
  void encode_spans(std::string_view text, std::span<const TextSpan> spans, Encoded& out) const;
  std::vector<int32_t> encode_spans(std::string_view text, std::span<const TextSpan> spans) const;

  // Throws Error when an id is out of range. skip_special leaves special tokens out.
  std::string decode(std::span<const int32_t> ids, bool skip_special = true) const;
  // The bytes that a token adds to a text: possibly part of a character; for a special token its
  // name. Empty for an unused id.
  std::string_view piece(int32_t id) const;
  // The token as the vocabulary writes it ("Ġhello", "▁hello", "<0x0A>").
  std::string_view token(int32_t id) const;

  int32_t vocab_size() const;  // highest id + 1
  int32_t bos() const;         // -1 when there is none; so for the others
  int32_t eos() const;
  int32_t eot() const;
  int32_t pad() const;
  std::span<const int32_t> stop_ids() const;  // EOS, EOT and other tokens that end a turn
  bool is_special(int32_t id) const;
  int32_t special_id(std::string_view name) const;  // id of an added token, -1 when there is none
  int32_t find(std::string_view token) const;       // id of any token, -1 when there is none
  bool adds_bos() const;
  const TokenizerSpec& spec() const;

 private:
  friend class StreamDecoder;
  struct Impl;
  static Tokenizer built(TokenizerSpec spec, std::string_view origin);  // errors name the origin
  std::unique_ptr<Impl> impl_;
};

// Decodes ids as they come and never splits a character: what a later token may complete or change
// is held back. The joined results equal decode(), except that a run of byte tokens which turns out
// not to be UTF-8 has given out what was. The tokenizer outlives this.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer, bool skip_special = true);
  ~StreamDecoder();
  StreamDecoder(StreamDecoder&&) noexcept;
  std::string push(int32_t id);
  std::string finish();  // what was held back

 private:
  const Tokenizer* tokenizer_;
  bool skip_special_;
  std::unique_ptr<Decoding> decoding_;
};

// Export. The first throws Error(failure) when the tokenizer has a part that the format cannot say.
HfTokenizerFiles to_hf_json(const Tokenizer& tokenizer, std::string_view chat_template = {});
GgufVocabData to_gguf_vocab(const Tokenizer& tokenizer);

}  // namespace supersonic::text
