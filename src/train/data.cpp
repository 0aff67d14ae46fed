#include "train/data.h"

#include <algorithm>
#include <numeric>

#include "core/error.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace supersonic::train {
namespace {

constexpr std::int64_t kRowsAtLeast = 8;
constexpr std::int64_t kRowUnit = 32;          // tokens
constexpr std::int64_t kShortestRow = 1024;  // tokens: a product over fewer rows does not pay for decoding its weights

std::vector<text::Tokens> read_samples(const std::string& path, const text::TokenizerView& view,
                                       const text::RenderOptions& options, text::ReadSummary& summary, std::string* example,
                                       bool color) {
  std::vector<text::Tokens> samples;
  summary = text::read_rows(path, [&](const text::Sample& s) {
    if (example && example->empty()) *example = text::show_marked(text::mark_sample(s, view, options), color);
    text::tokenize_sample(s, view, options, samples);
  });
  return samples;
}

// Every sample, held-out ones included, must fit into a row; a row longer than all the data would be padding.
std::int64_t row_length(const TrainingData& d, const DataOptions& o) {
  std::int64_t longest = 1, tokens = 0, held_out = 0;
  for (const auto* samples : {&d.samples, &d.eval_samples})
    for (const auto& s : *samples) longest = std::max(longest, static_cast<std::int64_t>(s.ids.size()));
  for (const auto& s : d.samples) tokens += static_cast<std::int64_t>(s.ids.size());
  for (const auto& s : d.eval_samples) held_out += static_cast<std::int64_t>(s.ids.size());
  const std::int64_t needed = o.pack ? std::max(tokens, held_out) : longest;
  if (o.seq_len > 0) return std::min(o.seq_len, (needed + kRowUnit - 1) / kRowUnit * kRowUnit);
  std::int64_t n = kShortestRow;
  while (n > 32 && tokens < kRowsAtLeast * n) n /= 2;  // little data would leave most of a long row empty
  while (n < longest) n *= 2;
  return std::min(n, std::max(o.longest, longest));
}

}  // namespace

TrainingData load_training_data(const text::ModelText& model, const text::Tokenizer& tokenizer, const DataOptions& o,
                                bool color) {
  TrainingData d;
  const auto chat_template = model.chat_template();
  const text::TokenizerView view = model.view(tokenizer);
  text::RenderOptions render;
  render.chat_template = chat_template.get();
  render.seq_len = o.seq_len > 0 ? o.seq_len : o.longest;
  render.train_on_all = o.train_on_all;
  const text::DataFiles files = text::find_data_files(o.data);
  text::ReadSummary summary, eval_summary;
  d.samples = read_samples(files.train, view, render, summary, &d.example, color);
  const std::string eval_file = !o.eval_data.empty() ? text::find_data_files(o.eval_data).train : files.valid;
  if (!eval_file.empty()) d.eval_samples = read_samples(eval_file, view, render, eval_summary, nullptr, color);
  if (d.samples.empty()) fail(ErrorKind::usage, "{}: no samples: the file is empty", files.train);

  d.seq_len = row_length(d, o);
  text::PackOptions pack;
  pack.seq_len = d.seq_len;
  pack.rows = o.rows;
  pack.seed = o.seed;
  pack.pack = o.pack;
  pack.pad = std::max(0, tokenizer.pad());
  d.report = text::check_data(d.samples, summary, pack);
  d.mean_length = static_cast<double>(d.report.tokens) / static_cast<double>(d.samples.size());
  d.split = text::split_samples(d.samples.size(), d.eval_samples.empty() ? o.eval_samples : 0, o.seed);
  d.train.emplace(d.samples, d.split.train, pack);
  if (!d.eval_samples.empty()) {
    std::vector<std::uint32_t> all(d.eval_samples.size());
    std::iota(all.begin(), all.end(), 0u);
    d.eval.emplace(d.eval_samples, all, pack);
  } else if (!d.split.eval.empty()) {
    d.eval.emplace(d.samples, d.split.eval, pack);
  }
  return d;
}

}  // namespace supersonic::train
