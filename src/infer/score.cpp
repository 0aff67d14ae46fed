#include "infer/score.h"

#include <algorithm>


namespace supersonic::infer {
namespace {

StorageRef ints(std::int64_t n, const char* name) { return Storage::make({Shape{n}, DType::i32, nullptr}, name); }

}  // namespace

Scorer::Scorer(const models::Model& model, Executor& executor, Compute compute, std::int64_t window, bool with_logits,
               const nn::LoraSet* lora, std::optional<models::TensorType> kv_type)
    : model_(model), window_(window), with_logits_(with_logits) {
  models::check_context(model, window);
  ids_ = ints(window, "ids");
  positions_ = ints(window, "positions");
  lo_ = ints(window, "lo");
  hi_ = ints(window, "hi");
  window_lo_ = ints(window, "window_lo");
  labels_ = ints(window, "labels");
  if (kv_type) {
    cache_ = models::make_kv_cache(model, window, *kv_type, executor.backend());
    at_ = ints(1, "at");
  }
  scale_ = Storage::make({Shape{1}, DType::f32, nullptr}, "scale");
  *scale_->as<float>() = 1;
  nn::Recorder recorder;
  recorder.activation = activation_of(compute);
  const nn::LoraSet here = lora ? lora->resident(executor.backend()) : nn::LoraSet();
  recorder.lora = lora ? &here : nullptr;
  Policy policy;
  policy.compute = compute;
  program_ = Program::capture(
      [&]() -> Tensors {
        const models::Inputs in{from_storage(ids_), from_storage(positions_), from_storage(lo_), from_storage(hi_),
                                from_storage(window_lo_)};
        const Tensor h = kv_type ? models::hidden(recorder, model, in, cache_, from_storage(at_), window)
                                 : models::hidden(recorder, model, in);
        Tensors out = {models::loss(model, h, from_storage(labels_), from_storage(scale_))};
        if (with_logits) out.push_back(models::logits(model, h));
        return out;
      },
      executor, policy);
}

double Scorer::nll(std::span<const std::int32_t> ids, std::span<const std::int32_t> labels) {
  const auto n = static_cast<std::int64_t>(ids.size());
  CHECK(n <= window_ && labels.size() == ids.size(), "{} tokens do not fit a window of {}", n, window_);
  for (std::int64_t i = 0; i < window_; ++i) {
    const bool real = i < n;
    ids_->as<std::int32_t>()[i] = real ? ids[i] : 0;
    positions_->as<std::int32_t>()[i] = real ? static_cast<std::int32_t>(i) : 0;
    lo_->as<std::int32_t>()[i] = 0;
    hi_->as<std::int32_t>()[i] = real ? static_cast<std::int32_t>(i) : -1;
    window_lo_->as<std::int32_t>()[i] = static_cast<std::int32_t>(std::max<std::int64_t>(0, i + 1 - model_.config.sliding_window));
    labels_->as<std::int32_t>()[i] = real ? labels[i] : -1;
  }
  program_.run();
  return program_.result(0).values<float>()[0];
}

std::span<const float> Scorer::logits(std::int64_t row) const {
  CHECK(with_logits_, "this scorer keeps no logits");
  const Storage& s = program_.result(1);
  return s.values<float>().subspan(row * s.spec.shape[1], s.spec.shape[1]);
}

std::vector<Window> perplexity_windows(std::int64_t n, const PerplexityOptions& options) {
  std::vector<Window> windows;
  const std::int64_t c = options.context;
  if (options.llamacpp) {
    for (std::int64_t at = 0; at + c <= n; at += c) windows.push_back({at, c, c / 2});
  } else {
    for (std::int64_t at = 0; at < n - 1; at += c) windows.push_back({at, std::min(c, n - at), 0});
  }
  return windows;
}

}  // namespace supersonic::infer
