// The exponential of every kernel file: branch-free, so that loops over it become vector code.
#pragma once

#include <bit>
#include <cstdint>

namespace mobilemoe {
namespace {

// e^x = 2^n * e^r with |r| <= ln(2)/2, where the Taylor series to degree 7 is off by less than
// 2^-27. 0 below kExpLow, e^kExpHigh above kExpHigh, where 2^n stays a normal number.
constexpr float kExpLow = -87.3f, kExpHigh = 88.3f;
constexpr float kLog2E = 1.44269504f;
constexpr float kLn2High = 0x1.62ep-1f, kLn2Low = 0x1.0bfbe8p-15f;  // sum: ln 2
constexpr float kRoundMagic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
// Of r^7 to r^0.
constexpr float kExpSeries[] = {1.0f / 5040, 1.0f / 720, 1.0f / 120, 1.0f / 24,
                                1.0f / 6,    0.5f,       1.0f,       1.0f};

[[maybe_unused]] inline float exp_inline(float x) {
  float clamped = x > kExpLow ? x : kExpLow;  // also for NaN
  clamped = clamped < kExpHigh ? clamped : kExpHigh;
  const float n = (clamped * kLog2E + kRoundMagic) - kRoundMagic;
  const float r = (clamped - n * kLn2High) - n * kLn2Low;
  float series = kExpSeries[0];
  for (int i = 1; i < 8; ++i) series = series * r + kExpSeries[i];
  const uint32_t power = static_cast<uint32_t>(static_cast<int32_t>(n) + 127) << 23;
  const float value = x < kExpLow ? 0.0f : series * std::bit_cast<float>(power);
  return x != x ? x : value;
}

}  // namespace
}  // namespace mobilemoe
