#include "elementwise.h"

#include <bit>
#include <cmath>

namespace mobilemoe {
namespace {

// e^x = 2^n * e^r with |r| <= ln(2)/2, where the Taylor series to degree 7 is off by less than
// 2^-27. Branch-free, so that loops over it become vector code.
inline float exp_inline(float x) {
  constexpr float kLow = -87.3f, kHigh = 88.3f;  // where 2^n stays a normal number
  constexpr float kLog2E = 1.44269504f;
  constexpr float kLn2High = 0x1.62ep-1f, kLn2Low = 0x1.0bfbe8p-15f;  // sum: ln 2
  constexpr float kMagic = 12582912.0f;  // adding it rounds to an integer
  float clamped = x > kLow ? x : kLow;  // also for NaN
  clamped = clamped < kHigh ? clamped : kHigh;
  const float n = (clamped * kLog2E + kMagic) - kMagic;
  const float r = (clamped - n * kLn2High) - n * kLn2Low;
  float series = 1.0f / 5040;
  series = series * r + 1.0f / 720;
  series = series * r + 1.0f / 120;
  series = series * r + 1.0f / 24;
  series = series * r + 1.0f / 6;
  series = series * r + 0.5f;
  series = series * r + 1.0f;
  series = series * r + 1.0f;
  const uint32_t power = static_cast<uint32_t>(static_cast<int32_t>(n) + 127) << 23;
  const float value = x < kLow ? 0.0f : series * std::bit_cast<float>(power);
  return x != x ? x : value;
}

double sum_of_squares(const float* x, int64_t width) {
  double lanes[4] = {};
  int64_t i = 0;
  for (; i + 4 <= width; i += 4) {
    for (int64_t lane = 0; lane < 4; ++lane) {
      lanes[lane] += static_cast<double>(x[i + lane]) * static_cast<double>(x[i + lane]);
    }
  }
  for (; i < width; ++i) lanes[0] += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  return (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
}

}  // namespace

float exp_fp32(float x) { return exp_inline(x); }

void rms_norm(const float* x, const float* weight, double eps, int64_t width, float* out) {
  const double mean = sum_of_squares(x, width) / static_cast<double>(width);
  const auto factor = static_cast<float>(1.0 / std::sqrt(mean + eps));
  for (int64_t i = 0; i < width; ++i) out[i] = x[i] * factor * (weight ? weight[i] : 1.0f);
}

void silu_multiply(const float* gate, const float* up, int64_t width, float* out) {
  for (int64_t i = 0; i < width; ++i) out[i] = gate[i] / (1.0f + exp_inline(-gate[i])) * up[i];
}

void softmax(float* scores, int64_t count) {
  float largest = scores[0];
  for (int64_t i = 1; i < count; ++i) largest = scores[i] > largest ? scores[i] : largest;
  for (int64_t i = 0; i < count; ++i) scores[i] = exp_inline(scores[i] - largest);
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += static_cast<double>(scores[i]);
  const auto factor = static_cast<float>(1.0 / sum);
  for (int64_t i = 0; i < count; ++i) scores[i] *= factor;
}

}  // namespace mobilemoe
