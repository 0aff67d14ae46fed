// SentencePiece models, however they arrive: a tokenizer.model file (a protobuf message), or the
// keys that GGUF keeps of one. Both become the same pipeline: compiled normalization map, spaces
// merged, a space in front, spaces as U+2581, then Unigram or BPE whose merges follow from the
// scores (any two pieces whose join is a piece, best score first).
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer_spec.h"

namespace supersonic::text {

enum TokenType : int32_t {  // numbers of both formats
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6
};

struct SentencePieces {
  bool unigram = false;
  std::vector<std::string> tokens;  // by id, as scores and types
  std::vector<double> scores;
  std::vector<int32_t> types;  // or empty: all normal
  std::string charsmap;        // or empty
  bool like_crate = false;     // map and scores as the `tokenizers` crate has them
  bool space_in_front = true, merge_spaces = false, byte_fallback = true;
  int32_t bos = -1, eos = -1, unk = -1, pad = -1;
};

// `where` begins messages. Throws Error(bad_file). The added tokens are the control, unknown and
// user-defined ones.
TokenizerSpec sentence_piece_spec(SentencePieces pieces, std::string_view where);

// A tokenizer.model file. Throws Error(bad_file) that names the field and the byte.
SentencePieces read_sentence_piece_model(std::string_view bytes, std::string_view where);

}  // namespace supersonic::text
