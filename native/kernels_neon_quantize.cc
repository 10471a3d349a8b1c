// Activations to int8, with NEON; the same integers and scales as the portable functions.
#include "kernels_neon.h"
#include "neon_blocks.h"
#include "quantize_scale.h"

namespace mobilemoe {
namespace {

constexpr int kRegisters = kGroupSize / kLanes;

// 32 floats.
struct Block {
  float32x4_t x[kRegisters];
};

inline Block load_block(const float* x) {
  Block block;
  for (int i = 0; i < kRegisters; ++i) block.x[i] = vld1q_f32(x + i * kLanes);
  return block;
}

// The bits of the largest magnitude; NaN wins over infinity over numbers.
inline uint32_t largest_magnitude_bits(const Block& block) {
  uint32x4_t largest = vdupq_n_u32(0);
  for (const float32x4_t x : block.x) {
    const uint32x4_t bits = vandq_u32(vreinterpretq_u32_f32(x), vdupq_n_u32(0x7FFFFFFFu));
    largest = vmaxq_u32(largest, bits);
  }
  return vmaxvq_u32(largest);
}

// x * inverse; zeros where the inverse is 0: such a block has no finite size, and 0 * NaN must
// not reach the integers.
inline Block scaled(const Block& block, float inverse) {
  Block out;
  for (int i = 0; i < kRegisters; ++i) {
    out.x[i] = inverse == 0.0f ? vdupq_n_f32(0.0f) : vmulq_n_f32(block.x[i], inverse);
  }
  return out;
}

}  // namespace

void neon_quantize_row(const float* x_I, int64_t width, int8_t* values, float* scales,
                       int32_t* sums, float* rest_I) {
  for (int64_t first = 0; first < width; first += kGroupSize) {
    const Block block = load_block(x_I + first);
    const BlockScale scale = block_scale(largest_magnitude_bits(block));
    const Block floats = scaled(block, scale.inverse);
    int32x4_t rounded[kRegisters];  // to nearest, ties to even
    for (int i = 0; i < kRegisters; ++i) rounded[i] = vcvtnq_s32_f32(floats.x[i]);
    const int8x16_t low = low_bytes(rounded), high = low_bytes(rounded + 4);
    vst1q_s8(values + first, vuzp1q_s8(low, high));
    vst1q_s8(values + first + 16, vuzp2q_s8(low, high));
    scales[first / kGroupSize] = scale.scale;
    sums[first / kGroupSize] = vaddlvq_s8(low) + vaddlvq_s8(high);
    for (int i = 0; rest_I != nullptr && i < kRegisters; ++i) {
      const float32x4_t kept = vmulq_n_f32(vcvtq_f32_s32(rounded[i]), scale.scale);
      vst1q_f32(rest_I + first + i * kLanes, vsubq_f32(block.x[i], kept));
    }
  }
}

void neon_scale_row(const float* x_I, int64_t width, float* values_I, float* scales) {
  for (int64_t first = 0; first < width; first += kGroupSize) {
    const Block block = load_block(x_I + first);
    const BlockScale scale = block_scale(largest_magnitude_bits(block));
    const Block floats = scaled(block, scale.inverse);
    for (int i = 0; i < kRegisters; ++i) vst1q_f32(values_I + first + i * kLanes, floats.x[i]);
    scales[first / kGroupSize] = scale.scale;
  }
}

}  // namespace mobilemoe
