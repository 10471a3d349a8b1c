#include "rope.h"

#include <cmath>
#include <numbers>

namespace mobilemoe {

std::vector<double> rope_frequencies(const Config& config) {
  std::vector<double> frequencies;
  const auto longest = static_cast<double>(config.rope_original_max_position_embeddings);
  for (int64_t i = 0; i < config.head_dim; i += 2) {
    const double exponent = -static_cast<double>(i) / static_cast<double>(config.head_dim);
    const double frequency = std::pow(config.rope_theta, exponent);
    const double wavelength = 2.0 * std::numbers::pi / frequency;
    const bool scaled = config.rope_scaling_factor != 1.0 && wavelength > longest;
    frequencies.push_back(scaled ? frequency / config.rope_scaling_factor : frequency);
  }
  return frequencies;
}

void rope_table(const std::vector<double>& frequencies, int64_t first, int64_t tokens, float* cos,
                float* sin) {
  for (int64_t t = 0; t < tokens; ++t) {
    for (const double frequency : frequencies) {
      const double angle = static_cast<double>(first + t) * frequency;
      *cos++ = static_cast<float>(std::cos(angle));
      *sin++ = static_cast<float>(std::sin(angle));
    }
  }
}

void apply_rope(float* x_d, const float* cos, const float* sin, int64_t d) {
  for (int64_t i = 0; i < d / 2; ++i) {
    const float even = x_d[2 * i], odd = x_d[2 * i + 1];
    x_d[2 * i] = even * cos[i] - odd * sin[i];
    x_d[2 * i + 1] = even * sin[i] + odd * cos[i];
  }
}

}  // namespace mobilemoe
