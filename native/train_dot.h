// The sum of products of two rows, in one order everywhere.
#pragma once

#include <cstdint>

namespace mobilemoe {
namespace {

// Sixteen sums side by side, so that the compiler makes vectors of them.
inline float dot_rows(const float* a, const float* b, int64_t width) {
  constexpr int64_t kLanes = 16;
  float sums[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= width; i += kLanes) {
    for (int64_t j = 0; j < kLanes; ++j) sums[j] += a[i + j] * b[i + j];
  }
  for (int64_t j = 0; i + j < width; ++j) sums[j] += a[i + j] * b[i + j];
  for (int64_t half = kLanes / 2; half > 0; half /= 2) {
    for (int64_t j = 0; j < half; ++j) sums[j] += sums[j + half];
  }
  return sums[0];
}

}  // namespace
}  // namespace mobilemoe
