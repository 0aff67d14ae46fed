// Frequencies of rotary embedding and their scalings for longer contexts, as transformers' modeling_rope_utils defines them:
// linear (positions divided), llama3 (long wavelengths divided, short ones kept, a ramp between), yarn (Peng et al. 2023).
#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "models/model.h"

namespace supersonic::models {
namespace {

constexpr double kTwoPi = 6.283185307179586476925;

double llama3(double f, const io::RopeScaling& s, double original) {
  const double wavelength = kTwoPi / f, low = original / s.low_freq_factor, high = original / s.high_freq_factor;
  if (wavelength < high) return f;
  if (wavelength > low) return f / s.factor;
  const double smooth = (original / wavelength - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor);
  return (1 - smooth) * f / s.factor + smooth * f;
}

// The pair index whose wavelength turns `rotations` times over the original context.
double yarn_dim(double rotations, double dim, double base, double original) {
  return dim * std::log(original / (rotations * kTwoPi)) / (2 * std::log(base));
}

}  // namespace

void check_context(const Model& model, std::int64_t tokens) {
  const io::ModelConfig& c = model.config;
  if (c.rope_scaling.kind != io::RopeScaling::Kind::dynamic || tokens <= c.max_position_embeddings) return;
  fail(ErrorKind::usage,
       "{}: a context of {} tokens: rope_scaling of type \"dynamic\" changes the rotation beyond max_position_embeddings ({}), "
       "which this program does not do; ask for at most that many (--ctx, --seq-len)",
       model.path, tokens, c.max_position_embeddings);
}

std::vector<float> rope_frequencies(const io::ModelConfig& c, float& magnitude) {
  using Kind = io::RopeScaling::Kind;
  const std::int64_t half = c.head_dim / 2;
  const io::RopeScaling& s = c.rope_scaling;
  const double original = static_cast<double>(s.original_max_position ? s.original_max_position : c.max_position_embeddings);
  std::vector<float> result(half);
  double low = 0, high = 0;
  magnitude = 1;
  if (s.kind == Kind::yarn) {
    const double dim = static_cast<double>(c.head_dim);
    low = std::max(0.0, std::floor(yarn_dim(s.beta_fast, dim, c.rope_theta, original)));
    high = std::min(dim - 1, std::ceil(yarn_dim(s.beta_slow, dim, c.rope_theta, original)));
    if (low == high) high += 0.001;
    magnitude = static_cast<float>(s.attention_factor > 0 ? s.attention_factor : 0.1 * std::log(s.factor) + 1);
  }
  for (std::int64_t i = 0; i < half; ++i) {
    // In fp32, as the models were trained: at position p a frequency's last bit is p bits of the angle's.
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(c.head_dim);
    double f = 1.0f / std::pow(static_cast<float>(c.rope_theta), exponent);
    if (s.kind == Kind::linear) f /= s.factor;
    if (s.kind == Kind::llama3) f = llama3(f, s, original);
    if (s.kind == Kind::yarn) {
      const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
      f = f / s.factor * ramp + f * (1 - ramp);
    }
    result[i] = static_cast<float>(f);
  }
  return result;
}

}  // namespace supersonic::models
