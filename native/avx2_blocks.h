// Building blocks of the AVX2 kernels: 32 weights, 32 activations, sums over lanes.
// Include from kernels_avx2*.cc only.
#pragma once

#include <immintrin.h>

#include "exp_inline.h"
#include "quantize_scale.h"
#include "weight_formats.h"

namespace mobilemoe {
namespace {

constexpr int64_t kLanes = 8;  // floats per register
constexpr int64_t kQuads = 8;  // groups of four inputs in a block

inline __m128i load_16(const void* bytes) {
  return _mm_loadu_si128(static_cast<const __m128i*>(bytes));
}

inline __m256i load_32(const void* bytes) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(bytes));
}

inline void store_32(void* bytes, __m256i x) {
  _mm256_storeu_si256(static_cast<__m256i*>(bytes), x);
}

// Four bytes in every lane.
inline __m256i broadcast_quad(const void* four) {
  int32_t quad;
  std::memcpy(&quad, four, sizeof quad);
  return _mm256_set1_epi32(quad);
}

inline void prefetch(const uint8_t* at, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) _mm_prefetch(at + i, _MM_HINT_T1);
}

// Packed nibbles of signed values -> packed nibbles of value + 8.
inline __m256i offset_nibbles(__m256i packed) {
  return _mm256_xor_si256(packed, _mm256_set1_epi8(static_cast<char>(0x88)));
}

inline __m256i low_nibbles(__m256i packed) {
  return _mm256_and_si256(packed, _mm256_set1_epi8(15));
}

inline __m256i high_nibbles(__m256i packed) { return low_nibbles(_mm256_srli_epi16(packed, 4)); }

// y[8] += exact * scale, rounding after each step.
inline void add_scaled(__m256i exact, __m256 scale, float* y) {
  const __m256 product = _mm256_mul_ps(_mm256_cvtepi32_ps(exact), scale);
  _mm256_store_ps(y, _mm256_add_ps(_mm256_load_ps(y), product));
}

inline float sum_lanes(__m256 x) {
  __m128 sum = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
  return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
}

inline float largest_lane(__m256 x) {
  __m128 half = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  half = _mm_max_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_max_ss(half, _mm_movehdup_ps(half)));
}

// exp_inline, lane by lane.
inline __m256 exp_lanes(__m256 x) {
  __m256 clamped = _mm256_max_ps(x, _mm256_set1_ps(kExpLow));  // kExpLow for NaN
  clamped = _mm256_min_ps(clamped, _mm256_set1_ps(kExpHigh));
  const __m256 magic = _mm256_set1_ps(kRoundMagic);
  const __m256 n =
      _mm256_sub_ps(_mm256_fmadd_ps(clamped, _mm256_set1_ps(kLog2E), magic), magic);
  __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(kLn2High), clamped);
  r = _mm256_fnmadd_ps(n, _mm256_set1_ps(kLn2Low), r);
  __m256 series = _mm256_set1_ps(kExpSeries[0]);
  for (int i = 1; i < 8; ++i) series = _mm256_fmadd_ps(series, r, _mm256_set1_ps(kExpSeries[i]));
  const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
  const __m256 power = _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23));
  const __m256 value = _mm256_mul_ps(series, power);
  const __m256 small = _mm256_cmp_ps(x, _mm256_set1_ps(kExpLow), _CMP_LT_OQ);
  const __m256 nan = _mm256_cmp_ps(x, x, _CMP_UNORD_Q);
  return _mm256_blendv_ps(_mm256_andnot_ps(small, value), x, nan);
}

// 16 bytes with 32 nibbles -> their values + 8 as bytes: even elements, then odd elements.
inline __m256i unpack_nibbles(const uint8_t* bytes) {
  const __m128i packed = _mm_xor_si128(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)),
                                       _mm_set1_epi8(static_cast<char>(0x88)));
  const __m256i both = _mm256_set_m128i(_mm_srli_epi16(packed, 4), packed);
  return _mm256_and_si256(both, _mm256_set1_epi8(15));
}

// 32 int8 as floats.
inline void widen_int8(__m256i values, __m256 out[4]) {
  const __m128i low = _mm256_castsi256_si128(values), high = _mm256_extracti128_si256(values, 1);
  out[0] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(low));
  out[1] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(low, 8)));
  out[2] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(high));
  out[3] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(high, 8)));
}

// The same 32 values as floats in their natural order.
inline void unpack_floats(const uint8_t* bytes, __m256 out[4]) {
  const __m256i offset = _mm256_sub_epi8(unpack_nibbles(bytes), _mm256_set1_epi8(8));
  const __m128i even = _mm256_castsi256_si128(offset), odd = _mm256_extracti128_si256(offset, 1);
  widen_int8(_mm256_set_m128i(_mm_unpackhi_epi8(even, odd), _mm_unpacklo_epi8(even, odd)), out);
}

// 32 bfloat16 values as floats: their bits are the upper halves.
inline void widen_bfloat16(const uint8_t* bits, __m256 out[4]) {
  for (int64_t i = 0; i < 4; ++i) {
    const auto* eight = reinterpret_cast<const __m128i*>(bits + i * kLanes * 2);
    const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(eight));
    out[i] = _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
  }
}

// Which of 8 halves to load: as pairs, and the last one where their number is odd.
struct HalfMask {
  int64_t count;
  __m128i pairs, last;
};

inline HalfMask half_mask(int64_t count) {
  const __m128i pairs = _mm_set1_epi32(static_cast<int>(count / 2));
  const __m128i last = _mm_set1_epi16(static_cast<int16_t>(count % 2 == 0 ? -1 : count - 1));
  return {count, _mm_cmpgt_epi32(pairs, _mm_setr_epi32(0, 1, 2, 3)),
          _mm_cmpeq_epi16(last, _mm_setr_epi16(0, 1, 2, 3, 4, 5, 6, 7))};
}

// Up to 8 halves, zeros after them; reads nothing beyond.
inline __m128i load_halves(const uint8_t* halves, const HalfMask& mask) {
  if (mask.count == kLanes) return load_16(halves);
  const __m128i pairs = _mm_maskload_epi32(reinterpret_cast<const int*>(halves), mask.pairs);
  const int16_t last = static_cast<int16_t>(load_u16(halves + 2 * (mask.count - 1)));
  return _mm_or_si128(pairs, _mm_and_si128(mask.last, _mm_set1_epi16(last)));
}

// The first `count` <= 8 floats; the lanes behind them are 0, or not stored.
inline __m256 load_floats(const float* x, int64_t count) {
  if (count == kLanes) return _mm256_loadu_ps(x);
  alignas(32) float some[kLanes] = {};
  for (int64_t i = 0; i < count; ++i) some[i] = x[i];
  return _mm256_load_ps(some);
}

inline void store_floats(__m256 x, int64_t count, float* out) {
  if (count == kLanes) return _mm256_storeu_ps(out, x);
  alignas(32) float some[kLanes];
  _mm256_store_ps(some, x);
  for (int64_t i = 0; i < count; ++i) out[i] = some[i];
}

struct QuantizedBlock {
  __m256i values;  // 32 int8 in their natural order
  float scale;
};

inline uint32_t largest_lane_bits(__m256i bits) {
  __m128i half = _mm_max_epi32(_mm256_castsi256_si128(bits), _mm256_extracti128_si256(bits, 1));
  half = _mm_max_epi32(half, _mm_shuffle_epi32(half, _MM_SHUFFLE(1, 0, 3, 2)));
  half = _mm_max_epi32(half, _mm_shuffle_epi32(half, _MM_SHUFFLE(2, 3, 0, 1)));
  return static_cast<uint32_t>(_mm_cvtsi128_si32(half));
}

inline uint32_t largest_magnitude_bits(const __m256 x[4]) {
  const __m256i mask = _mm256_set1_epi32(0x7FFFFFFF);
  __m256i bits = _mm256_and_si256(_mm256_castps_si256(x[0]), mask);
  for (int i = 1; i < 4; ++i) {
    bits = _mm256_max_epi32(bits, _mm256_and_si256(_mm256_castps_si256(x[i]), mask));
  }
  return largest_lane_bits(bits);
}

inline QuantizedBlock quantize_block(const __m256 x[4]) {
  const BlockScale scale = block_scale(largest_magnitude_bits(x));
  if (scale.inverse == 0.0f) return {_mm256_setzero_si256(), scale.scale};
  const __m256 inverse = _mm256_set1_ps(scale.inverse);
  __m256i rounded[4];  // to nearest, ties to even
  for (int i = 0; i < 4; ++i) rounded[i] = _mm256_cvtps_epi32(_mm256_mul_ps(x[i], inverse));
  const __m256i packed = _mm256_packs_epi16(_mm256_packs_epi32(rounded[0], rounded[1]),
                                            _mm256_packs_epi32(rounded[2], rounded[3]));
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);  // packing went by lane
  return {_mm256_permutevar8x32_epi32(packed, order), scale.scale};
}

// Natural order -> the 16 even elements, then the 16 odd ones.
inline __m256i even_odd_order(__m256i values) {
  const __m256i pick = _mm256_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15,  //
                                        0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);
  return _mm256_permute4x64_epi64(_mm256_shuffle_epi8(values, pick), _MM_SHUFFLE(3, 1, 2, 0));
}

// The sum of 32 int8.
inline int32_t sum_bytes(__m256i values) {
  const __m256i shifted = _mm256_xor_si256(values, _mm256_set1_epi8(static_cast<char>(0x80)));
  const __m256i sums = _mm256_sad_epu8(shifted, _mm256_setzero_si256());
  const __m128i half =
      _mm_add_epi64(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
  return _mm_cvtsi128_si32(_mm_add_epi64(half, _mm_unpackhi_epi64(half, half))) - 32 * 128;
}

inline void transpose_8x8(__m256 x[8]) {
  __m256 pairs[8], quads[8];
  for (int i = 0; i < 8; i += 2) {
    pairs[i] = _mm256_unpacklo_ps(x[i], x[i + 1]);
    pairs[i + 1] = _mm256_unpackhi_ps(x[i], x[i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {
    quads[i] = _mm256_shuffle_ps(pairs[i], pairs[i + 2], _MM_SHUFFLE(1, 0, 1, 0));
    quads[i + 1] = _mm256_shuffle_ps(pairs[i], pairs[i + 2], _MM_SHUFFLE(3, 2, 3, 2));
    quads[i + 2] = _mm256_shuffle_ps(pairs[i + 1], pairs[i + 3], _MM_SHUFFLE(1, 0, 1, 0));
    quads[i + 3] = _mm256_shuffle_ps(pairs[i + 1], pairs[i + 3], _MM_SHUFFLE(3, 2, 3, 2));
  }
  for (int i = 0; i < 4; ++i) {
    x[i] = _mm256_permute2f128_ps(quads[i], quads[i + 4], 0x20);
    x[i + 4] = _mm256_permute2f128_ps(quads[i], quads[i + 4], 0x31);
  }
}

// In each half of the registers, rows of four dwords become columns.
inline void transpose_dwords(__m256i x[4]) {
  const __m256i a = _mm256_unpacklo_epi32(x[0], x[1]), b = _mm256_unpackhi_epi32(x[0], x[1]);
  const __m256i c = _mm256_unpacklo_epi32(x[2], x[3]), d = _mm256_unpackhi_epi32(x[2], x[3]);
  x[0] = _mm256_unpacklo_epi64(a, c);
  x[1] = _mm256_unpackhi_epi64(a, c);
  x[2] = _mm256_unpacklo_epi64(b, d);
  x[3] = _mm256_unpackhi_epi64(b, d);
}

inline void transpose_halves(__m128i x[8]) {
  __m128i a[8], b[8];
  for (int i = 0; i < 4; ++i) {
    a[2 * i] = _mm_unpacklo_epi16(x[2 * i], x[2 * i + 1]);
    a[2 * i + 1] = _mm_unpackhi_epi16(x[2 * i], x[2 * i + 1]);
  }
  for (int i = 0; i < 2; ++i) {
    b[4 * i] = _mm_unpacklo_epi32(a[4 * i], a[4 * i + 2]);
    b[4 * i + 1] = _mm_unpackhi_epi32(a[4 * i], a[4 * i + 2]);
    b[4 * i + 2] = _mm_unpacklo_epi32(a[4 * i + 1], a[4 * i + 3]);
    b[4 * i + 3] = _mm_unpackhi_epi32(a[4 * i + 1], a[4 * i + 3]);
  }
  for (int i = 0; i < 4; ++i) {
    x[2 * i] = _mm_unpacklo_epi64(b[i], b[i + 4]);
    x[2 * i + 1] = _mm_unpackhi_epi64(b[i], b[i + 4]);
  }
}

}  // namespace
}  // namespace mobilemoe
