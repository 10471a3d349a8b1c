#include "elementwise.h"

#include <cmath>

#include "exp_inline.h"

namespace mobilemoe {
namespace {

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

float rms_factor(const float* x, double eps, int64_t width) {
  const double mean = sum_of_squares(x, width) / static_cast<double>(width);
  return static_cast<float>(1.0 / std::sqrt(mean + eps));
}

void rms_norm(const float* x, const float* weight, double eps, int64_t width, float* out) {
  const float factor = rms_factor(x, eps, width);
  for (int64_t i = 0; i < width; ++i) out[i] = x[i] * factor * (weight ? weight[i] : 1.0f);
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
