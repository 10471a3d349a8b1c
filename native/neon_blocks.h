// Building blocks of the NEON kernels. Include from kernels_neon*.cc only.
#pragma once

#include <arm_neon.h>

#include <type_traits>

#include "exp_inline.h"
#include "weight_formats.h"

namespace mobilemoe {
namespace {

constexpr int64_t kLanes = 4;  // floats, or four int8 each, per register

// Adding it to a float of less than 2^22 leaves the nearest integer, ties to even, in the low
// bits; with a fused multiplication before it, the product is rounded once.
constexpr float kMagic = 12582912.0f;

// Calls `body` with the constants 0 to 3: lanes of a register must be known at compile time.
template <class Body>
inline __attribute__((always_inline)) void for_lanes(const Body& body) {
  body(std::integral_constant<int, 0>{});
  body(std::integral_constant<int, 1>{});
  body(std::integral_constant<int, 2>{});
  body(std::integral_constant<int, 3>{});
}

inline int8x16_t load_16(const uint8_t* bytes) { return vreinterpretq_s8_u8(vld1q_u8(bytes)); }

// Signed nibbles times 16: sums of their products are exact multiples of 16.
inline int8x16_t low_nibbles_16(int8x16_t packed) { return vshlq_n_s8(packed, 4); }
inline int8x16_t high_nibbles_16(int8x16_t packed) {
  return vandq_s8(packed, vdupq_n_s8(static_cast<int8_t>(0xF0)));
}

// Such sums as the floats of what they stand for, exact like the sums.
inline float32x4_t float_of_16(int32x4_t sums) { return vcvtq_n_f32_s32(sums, 4); }

inline int8x16_t low_nibbles(int8x16_t packed) { return vshrq_n_s8(vshlq_n_s8(packed, 4), 4); }
inline int8x16_t high_nibbles(int8x16_t packed) { return vshrq_n_s8(packed, 4); }

inline float32x4_t floats_of(uint16x4_t halves) {
  return vcvt_f32_f16(vreinterpret_f16_u16(halves));
}

// `count` <= 4 halves, zeros after them; reads nothing beyond.
inline uint16x4_t load_halves(const uint8_t* halves, int64_t count) {
  if (count >= kLanes) return vreinterpret_u16_u8(vld1_u8(halves));
  uint16_t padded[kLanes] = {};
  for (int64_t i = 0; i < count; ++i) padded[i] = load_u16(halves + 2 * i);
  return vld1_u16(padded);
}

// `count` floats of 4, zeros after them.
inline float32x4_t load_floats(const float* x, int64_t count) {
  if (count >= kLanes) return vld1q_f32(x);
  float padded[kLanes] = {};
  for (int64_t i = 0; i < count; ++i) padded[i] = x[i];
  return vld1q_f32(padded);
}

inline void store_floats(float* x, int64_t count, float32x4_t values) {
  if (count >= kLanes) return vst1q_f32(x, values);
  float padded[kLanes];
  vst1q_f32(padded, values);
  for (int64_t i = 0; i < count; ++i) x[i] = padded[i];
}

// Interleaving 4-byte and 8-byte units.
inline int8x16_t zip_low_4(int8x16_t a, int8x16_t b) {
  return vreinterpretq_s8_s32(vzip1q_s32(vreinterpretq_s32_s8(a), vreinterpretq_s32_s8(b)));
}
inline int8x16_t zip_high_4(int8x16_t a, int8x16_t b) {
  return vreinterpretq_s8_s32(vzip2q_s32(vreinterpretq_s32_s8(a), vreinterpretq_s32_s8(b)));
}
inline int8x16_t zip_low_8(int8x16_t a, int8x16_t b) {
  return vreinterpretq_s8_s64(vzip1q_s64(vreinterpretq_s64_s8(a), vreinterpretq_s64_s8(b)));
}
inline int8x16_t zip_high_8(int8x16_t a, int8x16_t b) {
  return vreinterpretq_s8_s64(vzip2q_s64(vreinterpretq_s64_s8(a), vreinterpretq_s64_s8(b)));
}
inline int32x4_t join_low(int32x4_t a, int32x4_t b) {
  return vreinterpretq_s32_s64(vzip1q_s64(vreinterpretq_s64_s32(a), vreinterpretq_s64_s32(b)));
}
inline int32x4_t join_high(int32x4_t a, int32x4_t b) {
  return vreinterpretq_s32_s64(vzip2q_s64(vreinterpretq_s64_s32(a), vreinterpretq_s64_s32(b)));
}

// Rows of four dwords become columns.
inline void transpose(int8x16_t x[4]) {
  const int8x16_t a = zip_low_4(x[0], x[1]), b = zip_high_4(x[0], x[1]);
  const int8x16_t c = zip_low_4(x[2], x[3]), d = zip_high_4(x[2], x[3]);
  x[0] = zip_low_8(a, c);
  x[1] = zip_high_8(a, c);
  x[2] = zip_low_8(b, d);
  x[3] = zip_high_8(b, d);
}
inline void transpose(float32x4_t x[4]) {
  int8x16_t bytes[4];
  for (int i = 0; i < 4; ++i) bytes[i] = vreinterpretq_s8_f32(x[i]);
  transpose(bytes);
  for (int i = 0; i < 4; ++i) x[i] = vreinterpretq_f32_s8(bytes[i]);
}

// Four rows of 16 bytes -> out[p] has in lane j the four bytes of column 4p + j.
inline void interleave(const int8x16_t rows[4], int8x16_t out[4]) {
  const auto halves = [](int8x16_t x) { return vreinterpretq_s16_s8(x); };
  const int16x8_t low01 = halves(vzip1q_s8(rows[0], rows[1]));
  const int16x8_t low23 = halves(vzip1q_s8(rows[2], rows[3]));
  const int16x8_t high01 = halves(vzip2q_s8(rows[0], rows[1]));
  const int16x8_t high23 = halves(vzip2q_s8(rows[2], rows[3]));
  out[0] = vreinterpretq_s8_s16(vzip1q_s16(low01, low23));
  out[1] = vreinterpretq_s8_s16(vzip2q_s16(low01, low23));
  out[2] = vreinterpretq_s8_s16(vzip1q_s16(high01, high23));
  out[3] = vreinterpretq_s8_s16(vzip2q_s16(high01, high23));
}

// The low bytes of 16 integers.
inline int8x16_t low_bytes(const int32x4_t x[4]) {
  const auto halves = [](int32x4_t a, int32x4_t b) {
    return vreinterpretq_s8_s16(vuzp1q_s16(vreinterpretq_s16_s32(a), vreinterpretq_s16_s32(b)));
  };
  return vuzp1q_s8(halves(x[0], x[1]), halves(x[2], x[3]));
}

// exp_inline, lane by lane.
inline float32x4_t exp_lanes(float32x4_t x) {
  const float32x4_t low = vdupq_n_f32(kExpLow), magic = vdupq_n_f32(kRoundMagic);
  const float32x4_t clamped = vminnmq_f32(vmaxnmq_f32(x, low), vdupq_n_f32(kExpHigh));
  const float32x4_t n = vsubq_f32(vfmaq_n_f32(magic, clamped, kLog2E), magic);
  float32x4_t r = vfmsq_n_f32(clamped, n, kLn2High);
  r = vfmsq_n_f32(r, n, kLn2Low);
  float32x4_t series = vdupq_n_f32(kExpSeries[0]);
  for (int i = 1; i < 8; ++i) series = vfmaq_f32(vdupq_n_f32(kExpSeries[i]), series, r);
  const int32x4_t exponent = vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127));
  const float32x4_t power = vreinterpretq_f32_s32(vshlq_n_s32(exponent, 23));
  const float32x4_t value = vmulq_f32(series, power);
  const uint32x4_t tiny = vcltq_f32(x, low), number = vceqq_f32(x, x);
  return vbslq_f32(number, vbslq_f32(tiny, vdupq_n_f32(0.0f), value), x);
}

}  // namespace
}  // namespace mobilemoe
