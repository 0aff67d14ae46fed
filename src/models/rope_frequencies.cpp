// Frequencies of rotary embedding and their scalings for longer contexts, as transformers' modeling_rope_utils defines them:
// linear (positions divided), llama3 (long wavelengths divided, short ones kept, a ramp between), yarn (Peng et al. 2023), longrope (a
// divisor for each frequency, one set up to the original context and one beyond, Ding et al. 2024).
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

std::vector<float> rope_frequencies(const io::ModelConfig& c, float& magnitude, bool beyond) {
  using Kind = io::RopeScaling::Kind;
  const std::int64_t half = c.rotary() / 2;
  const io::RopeScaling& s = c.rope_scaling;
  const double original = static_cast<double>(s.original_max_position ? s.original_max_position : c.max_position_embeddings);
  std::vector<float> result(half);
  double low = 0, high = 0;
  magnitude = 1;
  if (s.kind == Kind::yarn) {
    const double dim = static_cast<double>(c.rotary());
    low = yarn_dim(s.beta_fast, dim, c.rope_theta, original), high = yarn_dim(s.beta_slow, dim, c.rope_theta, original);
    if (s.truncate) low = std::floor(low), high = std::ceil(high);
    low = std::max(0.0, low), high = std::min(dim - 1, high);
    if (low == high) high += 0.001;
    magnitude = static_cast<float>(s.attention_factor > 0 ? s.attention_factor : 0.1 * std::log(s.factor) + 1);
  }
  if (s.kind == Kind::longrope) magnitude = static_cast<float>(io::longrope_magnitude(s));
  for (std::int64_t i = 0; i < half; ++i) {
    // In fp32, as the models were trained: at position p a frequency's last bit is p bits of the angle's.
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(c.rotary());
    const float wavelength = std::pow(static_cast<float>(c.rope_theta), exponent);
    double f = 1.0f / wavelength;
    if (s.kind == Kind::linear) f /= s.factor;
    if (s.kind == Kind::llama3) f = llama3(f, s, original);
    if (s.kind == Kind::yarn) {
      const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
      f = f / s.factor * ramp + f * (1 - ramp);
    }
    if (s.kind == Kind::longrope)
      f = 1.0f / (static_cast<float>((beyond ? s.long_factor : s.short_factor)[static_cast<std::size_t>(i)]) * wavelength);
    result[i] = static_cast<float>(f);
  }
  return result;
}

std::vector<float> local_rope_frequencies(const io::ModelConfig& config) {
  io::ModelConfig local = config;
  local.rope_theta = config.local_rope_theta;
  local.rope_scaling = {};
  float magnitude = 1;
  return rope_frequencies(local, magnitude);
}

void set_rotations(Model& model) {
  const io::ModelConfig& c = model.config;
  const auto store = [](Rotation& r, const std::vector<float>& f) {
    r.inv_freq = Storage::make({Shape{static_cast<std::int64_t>(f.size())}, DType::f32, nullptr}, "inv_freq");
    std::copy(f.begin(), f.end(), r.inv_freq->as<float>());
  };
  store(model.rope, rope_frequencies(c, model.rope.magnitude));
  if (c.local_rope_theta > 0 && c.sliding_window > 0) store(model.local_rope, local_rope_frequencies(c));
  if (c.rope_scaling.kind == io::RopeScaling::Kind::longrope)
    store(model.long_rope, rope_frequencies(c, model.long_rope.magnitude, true));
}

const Rotation& Model::rotation(std::int64_t layer, std::int64_t context) const {
  if (local_rope.inv_freq && config.slides(layer)) return local_rope;
  return long_rope.inv_freq && context > config.rope_scaling.original_max_position ? long_rope : rope;
}

}  // namespace supersonic::models
