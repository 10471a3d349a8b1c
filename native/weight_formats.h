// The two formats of a weight matrix on disk, and the small number formats inside them.
//
// INT4, R rows and C columns: `qweight` U8 [R, C/2] holds two's-complement nibbles, low nibble
// first (even column); `scale` F16 [R, C/32]; value = nibble * scale of its group of 32 along
// the row. BF16: `bits` [R, C], the upper halves of floats. Neither is ever expanded in memory.
//
// Everything is `static`: this header is compiled into the AVX2 file too, and the linker must
// not pick that copy for the others.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

#include "config.h"

namespace mobilemoe {

enum class WeightFormat { kInt4, kBf16 };

struct Int4Matrix {
  const uint8_t* qweight = nullptr;
  const uint8_t* scale = nullptr;  // F16, possibly unaligned
  int64_t rows = 0;
  int64_t columns = 0;
};

struct Bf16Matrix {
  const uint8_t* bits = nullptr;  // possibly unaligned
  int64_t rows = 0;
  int64_t columns = 0;
};

[[maybe_unused]] static inline const uint8_t* row_bytes(const Int4Matrix& w, int64_t row) {
  return w.qweight + row * (w.columns / 2);
}

[[maybe_unused]] static inline const uint8_t* row_scales(const Int4Matrix& w, int64_t row) {
  return w.scale + row * (w.columns / kGroupSize) * 2;
}

[[maybe_unused]] static inline const uint8_t* row_bits(const Bf16Matrix& w, int64_t row) {
  return w.bits + row * w.columns * 2;
}

[[maybe_unused]] static inline uint16_t load_u16(const uint8_t* bytes) {
  uint16_t value;
  std::memcpy(&value, bytes, sizeof value);
  return value;
}

// IEEE binary16 to float, exact for every input (subnormals, infinities and NaN included).
[[maybe_unused]] static inline float half_to_float(uint16_t half) {
  const uint32_t sign = (half & 0x8000u) << 16;
  const uint32_t exponent = (half >> 10) & 31u;
  const uint32_t mantissa = half & 0x3FFu;
  if (exponent == 0) {
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(magnitude));
  }
  const uint32_t wide = exponent == 31 ? 0x7F800000u : (exponent + 112) << 23;
  return std::bit_cast<float>(sign | wide | (mantissa << 13));
}

// The nearest binary16, ties to even; infinity above the largest one, a quiet NaN for NaN.
[[maybe_unused]] static inline uint16_t float_to_half(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7FFFFFFFu;
  if (magnitude > 0x7F800000u) return static_cast<uint16_t>(sign | 0x7E00u);
  if (magnitude >= 0x477FF000u) return static_cast<uint16_t>(sign | 0x7C00u);
  if (magnitude < 0x38800000u) {  // a subnormal half: units of 2^-24, rounded by the addition
    const float units = std::bit_cast<float>(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(units) - 0x3F000000u));
  }
  const uint32_t odd = (magnitude >> 13) & 1u;
  return static_cast<uint16_t>(sign | ((magnitude - 0x38000000u + 0xFFFu + odd) >> 13));
}

[[maybe_unused]] static inline float half_at(const uint8_t* halves, int64_t index) {
  return half_to_float(load_u16(halves + 2 * index));
}

[[maybe_unused]] static inline float bfloat16_at(const uint8_t* values, int64_t index) {
  return std::bit_cast<float>(static_cast<uint32_t>(load_u16(values + 2 * index)) << 16);
}

// The signed value, -8 to 7, of a nibble's four bits.
[[maybe_unused]] static inline int32_t nibble_value(uint8_t nibble) {
  return static_cast<int32_t>(nibble ^ 8u) - 8;
}

}  // namespace mobilemoe
