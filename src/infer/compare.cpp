#include "infer/compare.h"

#include <algorithm>
#include <cmath>

#include "core/device.h"
#include "infer/divergence.h"
#include "infer/score.h"
#include "text/model_text.h"
#include "text/tokenizer.h"

namespace supersonic::infer {
namespace {

// Prose, code, digits and another script, so that a tokenizer or a position that went wrong shows.
constexpr const char* kProbe =
    "The quick brown fox jumps over the lazy dog. In 1930, 42 people wrote:\n"
    "def add(a, b):\n    return a + b  # Grüße, 世界\n"
    "Question: what is the capital of France? Answer:";

constexpr double kMostOfDevice = 0.8;  // of its free memory, for weights

}  // namespace

std::vector<std::int32_t> probe_ids(const models::Model& model, std::int64_t limit) {
  std::vector<std::int32_t> ids = text::ModelText(model.path).tokenizer().encode(kProbe);
  std::erase_if(ids, [&](std::int32_t id) { return id >= model.config.vocab_size; });
  CHECK_FILE(!ids.empty(), "{}: its tokenizer turns text into no token that the model has",
             model.path);
  limit = std::min(limit, model.config.max_position_embeddings);
  if (static_cast<std::int64_t>(ids.size()) > limit) ids.resize(static_cast<std::size_t>(limit));
  return ids;
}

std::vector<float> prompt_logits(const models::Model& loaded, const nn::LoraSet* lora,
                                 std::span<const std::int32_t> ids, Backend& backend) {
  const bool here = backend.compute_place() == Place{};
  if (!here && loaded.weight_bytes() > kMostOfDevice * static_cast<double>(free_bytes(backend)))
    return prompt_logits(loaded, lora, ids);
  Executor executor(backend);
  models::Model model = loaded;
  models::make_resident(model, backend);
  const auto n = static_cast<std::int64_t>(ids.size());
  Scorer scorer(model, executor, Compute::fp32, n, true, lora);
  scorer.nll(ids, std::vector<std::int32_t>(ids.size(), -1));
  std::vector<float> out;
  for (std::int64_t i = 0; i < n; ++i) {
    const auto row = scorer.logits(i);
    out.insert(out.end(), row.begin(), row.end());
  }
  return out;
}

LogitDifference difference(std::span<const float> reference, std::span<const float> other,
                           std::int64_t vocab) {
  const auto width = static_cast<std::size_t>(vocab);
  CHECK(reference.size() == other.size() && vocab > 0 && reference.size() % width == 0,
        "{} and {} logits of a vocabulary of {} cannot be compared", reference.size(), other.size(),
        vocab);
  LogitDifference d;
  double squares = 0, norm = 0;
  for (std::size_t i = 0; i < reference.size(); ++i) {
    squares += (double{reference[i]} - other[i]) * (double{reference[i]} - other[i]);
    norm += double{reference[i]} * reference[i];
  }
  d.relative_error = std::sqrt(squares / std::max(norm, 1e-300));
  for (std::size_t at = 0; at < reference.size(); at += width) {
    const TokenDivergence t =
        compare_logits(other.subspan(at, width), reference.subspan(at, width), 0);
    d.kl += t.kl;
    d.same_top += t.same_top;
  }
  const auto rows = static_cast<double>(std::max<std::size_t>(reference.size() / width, 1));
  d.kl /= rows, d.same_top /= rows;
  return d;
}

}  // namespace supersonic::infer
