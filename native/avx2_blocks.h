// Building blocks of the AVX2 kernels: 32 weights, 32 activations, sums over lanes.
// Include from kernels_avx2.cc only.
#pragma once

#include <immintrin.h>

#include "quantize_scale.h"
#include "weight_formats.h"

namespace mobilemoe {
namespace {

constexpr int64_t kLanes = 8;  // floats per register

inline float sum_lanes(__m256 x) {
  __m128 sum = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
  return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
}

// 16 bytes with 32 nibbles -> their values + 8 as bytes: even elements, then odd elements.
inline __m256i unpack_nibbles(const uint8_t* bytes) {
  const __m128i packed = _mm_xor_si128(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)),
                                       _mm_set1_epi8(static_cast<char>(0x88)));
  const __m256i both = _mm256_set_m128i(_mm_srli_epi16(packed, 4), packed);
  return _mm256_and_si256(both, _mm256_set1_epi8(15));
}

// The same 32 values as floats in their natural order.
inline void unpack_floats(const uint8_t* bytes, __m256 out[4]) {
  const __m256i offset = _mm256_sub_epi8(unpack_nibbles(bytes), _mm256_set1_epi8(8));
  const __m128i even = _mm256_castsi256_si128(offset), odd = _mm256_extracti128_si256(offset, 1);
  const __m128i low = _mm_unpacklo_epi8(even, odd), high = _mm_unpackhi_epi8(even, odd);
  out[0] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(low));
  out[1] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(low, 8)));
  out[2] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(high));
  out[3] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(high, 8)));
}

// 32 bfloat16 values as floats: their bits are the upper halves.
inline void widen_bfloat16(const uint8_t* bits, __m256 out[4]) {
  for (int64_t i = 0; i < 4; ++i) {
    const auto* eight = reinterpret_cast<const __m128i*>(bits + i * kLanes * 2);
    const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(eight));
    out[i] = _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
  }
}

// `count` <= 8 halves as floats, zeros after them; reads nothing beyond.
inline __m256 load_halves(const uint8_t* halves, int64_t count) {
  if (count == kLanes) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(halves)));
  }
  alignas(16) uint16_t padded[kLanes] = {};
  for (int64_t i = 0; i < count; ++i) padded[i] = load_u16(halves + 2 * i);
  return _mm256_cvtph_ps(_mm_load_si128(reinterpret_cast<const __m128i*>(padded)));
}

struct QuantizedBlock {
  __m256i values;  // 32 int8 in their natural order
  float scale;
};

inline uint32_t largest_magnitude_bits(const __m256 x[4]) {
  const __m256i mask = _mm256_set1_epi32(0x7FFFFFFF);
  __m256i bits = _mm256_and_si256(_mm256_castps_si256(x[0]), mask);
  for (int i = 1; i < 4; ++i) {
    bits = _mm256_max_epi32(bits, _mm256_and_si256(_mm256_castps_si256(x[i]), mask));
  }
  __m128i half = _mm_max_epi32(_mm256_castsi256_si128(bits), _mm256_extracti128_si256(bits, 1));
  half = _mm_max_epi32(half, _mm_shuffle_epi32(half, _MM_SHUFFLE(1, 0, 3, 2)));
  half = _mm_max_epi32(half, _mm_shuffle_epi32(half, _MM_SHUFFLE(2, 3, 0, 1)));
  return static_cast<uint32_t>(_mm_cvtsi128_si32(half));
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

}  // namespace
}  // namespace mobilemoe
