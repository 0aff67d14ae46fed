// Training data of one run: samples read, rendered with the model's template, tokenized and marked; checked; split; packed.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "text/dataset_pack.h"
#include "text/model_text.h"

namespace supersonic::train {

struct DataOptions {
  std::string data, eval_data;       // files or folders; eval_data may be empty
  bool train_on_all = false;         // else the answers alone
  std::int64_t seq_len = 0;          // 0: chosen from the samples' lengths, at most `longest`
  std::int64_t longest = 2048;       // tokens kept of a sample
  std::int64_t eval_samples = -1;    // -1: min(5 %, 200) when there are 200 samples; 0: none
  std::uint64_t seed = 0;
  bool pack = true;
  std::int64_t rows = 1;
};

struct TrainingData {
  std::vector<text::Tokens> samples, eval_samples;
  text::Split split;
  text::DataReport report;
  std::string example;               // one rendered sample, trained parts marked
  std::int64_t seq_len = 0;
  std::optional<text::Packed> train, eval;
  double mean_length = 0;            // tokens a sample
};

// Throws Error(bad_file) for malformed data, Error(usage) when nothing is left to train on.
TrainingData load_training_data(const text::ModelText& model, const text::Tokenizer& tokenizer, const DataOptions& options,
                                bool color);

}  // namespace supersonic::train
