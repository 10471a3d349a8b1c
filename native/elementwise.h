// Row-wise float functions: one implementation for every instruction set, so that they have
// the same bits everywhere.
#pragma once

#include <cstdint>

namespace mobilemoe {

// e^x to within 2 units in the last place: 0 below -87.3, e^88.3 above 88.3, NaN for NaN.
float exp_fp32(float x);

// 1 / sqrt(mean(x^2) + eps)
float rms_factor(const float* x, double eps, int64_t width);

// out = x / sqrt(mean(x^2) + eps) * weight; no weight when it is null. `out` may be `x`.
// Mirrors mobilemoe.model.norm.rms_norm.
void rms_norm(const float* x, const float* weight, double eps, int64_t width, float* out);

// Softmax in place.
void softmax(float* scores, int64_t count);

}  // namespace mobilemoe
