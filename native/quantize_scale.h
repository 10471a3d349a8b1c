// How a block of 32 floats gets its int8 scale; every kernel must use exactly this rule.
#pragma once

#include <bit>
#include <cstdint>
#include <limits>

namespace mobilemoe {
namespace {

struct BlockScale {
  float scale;    // value = int8 * scale
  float inverse;  // int8 = round_half_even(value * inverse)
};

// `magnitude_bits`: the largest of the block's floats with their sign bit cleared, compared as
// integers, so that a NaN or an infinity wins over every finite value.
inline BlockScale block_scale(uint32_t magnitude_bits) {
  constexpr uint32_t kInfinityBits = 0x7F800000u;
  constexpr float kSmallest = 1e-30f;  // below it 127 / magnitude could overflow
  if (magnitude_bits >= kInfinityBits) return {std::numeric_limits<float>::quiet_NaN(), 0.0f};
  const float magnitude = std::bit_cast<float>(magnitude_bits);
  if (magnitude < kSmallest) return {0.0f, 0.0f};
  return {magnitude / 127.0f, 127.0f / magnitude};
}

}  // namespace
}  // namespace mobilemoe
