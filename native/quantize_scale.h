// How a block of 32 floats gets its int8 scale; every kernel must use exactly these rules.
#pragma once

#include <bit>
#include <cstdint>
#include <limits>

#include "weight_formats.h"

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

// How the weights of 64 cached positions become integers of 14 bits.
struct WeightScale {
  float scale;    // weight = integer * scale
  float inverse;  // integer = round_half_even(weight * inverse)
};

// `magnitude_bits`: as for `block_scale`.
inline WeightScale weight_scale(uint32_t magnitude_bits) {
  constexpr uint32_t kInfinityBits = 0x7F800000u;
  constexpr float kSmallest = 1e-30f, kLevels = 16383.0f;
  if (magnitude_bits >= kInfinityBits) return {std::numeric_limits<float>::quiet_NaN(), 0.0f};
  const float magnitude = std::bit_cast<float>(magnitude_bits);
  if (magnitude < kSmallest) return {0.0f, 0.0f};
  return {magnitude / kLevels, kLevels / magnitude};
}

// The scale that 32 inputs of an expert share for one group of outputs: the largest of theirs.
struct FoldScale {
  float scale;
  float inverse;  // 1 / scale; 0 where that is no number
};

// `magnitude_bits`: the largest of the F16 scales with their sign bit cleared, as integers.
inline FoldScale fold_scale(uint16_t magnitude_bits) {
  constexpr uint16_t kInfinityBits = 0x7C00u;
  if (magnitude_bits >= kInfinityBits) return {std::numeric_limits<float>::quiet_NaN(), 0.0f};
  if (magnitude_bits == 0) return {0.0f, 0.0f};
  const float scale = half_to_float(magnitude_bits);
  return {scale, 1.0f / scale};
}

}  // namespace
}  // namespace mobilemoe
