// GGUF's names for pre-tokenizers (tokenizer.ggml.pre): what each means as pipeline steps. The
// patterns are those of the models' own tokenizer.json, so ids equal the `tokenizers` package's
// also where llama.cpp approximates.
#pragma once
#include <string_view>
#include <vector>

#include "text/tokenizer_spec.h"

namespace supersonic::text {

struct PreType {
  std::vector<PreStep> steps;
  std::vector<NormalizerStep> normalizers;
  std::vector<DecodeStep> decoders;
  bool ignore_merges = false, add_bos = false;
  bool byte_fallback = false;  // on characters, not on GPT-2's bytes
};

// False when the name is not known.
bool find_pre_type(std::string_view name, PreType& out);
// The name for a pipeline read from tokenizer.json; empty when none fits.
std::string_view name_pre_type(const TokenizerSpec& spec);

}  // namespace supersonic::text
