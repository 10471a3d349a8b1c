// Building blocks of the AVX-512 kernels. Include from kernels_avx512*.cc only.
#pragma once

#include <immintrin.h>

#include "exp_inline.h"
#include "quantize_scale.h"
#include "weight_formats.h"

namespace mobilemoe {
namespace {

constexpr int64_t kLanes = 16;  // floats per register

// Adding it to a float of less than 2^22 leaves the nearest integer, ties to even, in the low
// bits; with a fused multiplication before it, the product is rounded once.
constexpr float kMagic = 12582912.0f;

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

inline __m512i load_bytes(const void* bytes) { return _mm512_loadu_si512(bytes); }

inline __m128i load_16(const void* bytes) {
  return _mm_loadu_si128(static_cast<const __m128i*>(bytes));
}

// Four int8 in every lane.
inline __m512i broadcast_quad(const void* four) {
  int32_t quad;
  std::memcpy(&quad, four, sizeof quad);
  return _mm512_set1_epi32(quad);
}

// (x & 15) ^ 8: the value + 8 of the low nibbles.
inline __m512i low_nibbles(__m512i packed) {
  constexpr int kAndXor = 0x6A;  // (a & b) ^ c
  return _mm512_ternarylogic_epi32(packed, _mm512_set1_epi8(15), _mm512_set1_epi8(8), kAndXor);
}

inline __m512i high_nibbles(__m512i packed) { return low_nibbles(_mm512_srli_epi16(packed, 4)); }

// In every 128-bit lane, rows of four dwords become columns.
inline void transpose_dwords(__m512i x[4]) {
  const __m512i a = _mm512_unpacklo_epi32(x[0], x[1]), b = _mm512_unpackhi_epi32(x[0], x[1]);
  const __m512i c = _mm512_unpacklo_epi32(x[2], x[3]), d = _mm512_unpackhi_epi32(x[2], x[3]);
  x[0] = _mm512_unpacklo_epi64(a, c);
  x[1] = _mm512_unpackhi_epi64(a, c);
  x[2] = _mm512_unpacklo_epi64(b, d);
  x[3] = _mm512_unpackhi_epi64(b, d);
}

// The bits of the largest magnitude among 32 floats; NaN wins over infinity over numbers.
inline uint32_t largest_magnitude_bits(__m512 a, __m512 b) {
  const __m512i mask = _mm512_set1_epi32(0x7FFFFFFF);
  const __m512i bits = _mm512_max_epi32(_mm512_and_si512(_mm512_castps_si512(a), mask),
                                        _mm512_and_si512(_mm512_castps_si512(b), mask));
  return static_cast<uint32_t>(_mm512_reduce_max_epi32(bits));
}

inline __mmask16 first_lanes(int64_t count) {
  return static_cast<__mmask16>(count >= kLanes ? 0xFFFFu : (1u << count) - 1u);
}

// exp_inline, lane by lane.
inline __m512 exp_lanes(__m512 x) {
  __m512 clamped = _mm512_max_ps(x, _mm512_set1_ps(kExpLow));
  clamped = _mm512_min_ps(clamped, _mm512_set1_ps(kExpHigh));
  const __m512 magic = _mm512_set1_ps(kRoundMagic);
  const __m512 shifted = _mm512_fmadd_ps(clamped, _mm512_set1_ps(kLog2E), magic);
  const __m512 n = _mm512_sub_ps(shifted, magic);
  __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(kLn2High), clamped);
  r = _mm512_fnmadd_ps(n, _mm512_set1_ps(kLn2Low), r);
  __m512 series = _mm512_set1_ps(kExpSeries[0]);
  for (int i = 1; i < 8; ++i) series = _mm512_fmadd_ps(series, r, _mm512_set1_ps(kExpSeries[i]));
  const __m512 value = _mm512_scalef_ps(series, n);
  const __mmask16 small = _mm512_cmp_ps_mask(x, _mm512_set1_ps(kExpLow), _CMP_LT_OQ);
  const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  return _mm512_mask_mov_ps(_mm512_mask_mov_ps(value, small, _mm512_setzero_ps()), nan, x);
}

}  // namespace
}  // namespace mobilemoe
