// The primitive of the integer kernels, which AVX2 has in three forms: products of small
// integers, summed exactly.
//
// Plain AVX2 adds pairs of byte products in int16; AVX-VNNI (VEX encoding) and AVX-512 VNNI with
// VL (EVEX encoding) add quads in int32. A file picks its form by a macro before it includes this
// one; all three give the same integers.
//
// The sum over a block of 32 inputs, four to a lane of int32, is
//   sum = begin_sum(start); sum = add_quads(sum, u8, s8), eight times; finish_sum(sum, start)
// `join_sums` adds parts of one block: one of them has begun with the start, the others with 0.
// A block's products must fit int16: nibbles 0 to 15 times |s8| <= 127 (16 * 15 * 127 = 30480), or
// u8 <= 255 times nibbles -8 to 7 (16 * 255 * 8 = 32640).
//
// add_pairs(sum, a, b) adds a0 * b0 + a1 * b1 in every lane of int32, for two int16 to a lane.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace mobilemoe {
namespace {

constexpr int64_t kTileWidth = 6;  // tokens of a tile, times two registers: what 16 ones hold

#if defined(MOBILEMOE_DOT_VEX) || defined(MOBILEMOE_DOT_EVEX)

inline __m256i begin_sum(__m256i start) { return start; }
inline __m256i join_sums(__m256i a, __m256i b) { return _mm256_add_epi32(a, b); }
inline __m256i finish_sum(__m256i sum, __m256i) { return sum; }

#ifdef MOBILEMOE_DOT_VEX
inline __m256i add_quads(__m256i sum, __m256i u8, __m256i s8) {
  return _mm256_dpbusd_avx_epi32(sum, u8, s8);
}
inline __m256i add_pairs(__m256i sum, __m256i a, __m256i b) {
  return _mm256_dpwssd_avx_epi32(sum, a, b);
}
#else
inline __m256i add_quads(__m256i sum, __m256i u8, __m256i s8) {
  return _mm256_dpbusd_epi32(sum, u8, s8);
}
inline __m256i add_pairs(__m256i sum, __m256i a, __m256i b) {
  return _mm256_dpwssd_epi32(sum, a, b);
}
#endif

#else

inline __m256i begin_sum(__m256i) { return _mm256_setzero_si256(); }
inline __m256i join_sums(__m256i a, __m256i b) { return _mm256_add_epi16(a, b); }
inline __m256i add_quads(__m256i sum, __m256i u8, __m256i s8) {
  sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(u8, s8));
  // A compiler that reorders the additions runs out of registers: here is the sum, take it.
  asm("" : "+x"(sum));
  return sum;
}
inline __m256i add_pairs(__m256i sum, __m256i a, __m256i b) {
  sum = _mm256_add_epi32(sum, _mm256_madd_epi16(a, b));
  asm("" : "+x"(sum));
  return sum;
}
inline __m256i finish_sum(__m256i sum, __m256i start) {
  return add_pairs(start, sum, _mm256_set1_epi16(1));
}

#endif

}  // namespace
}  // namespace mobilemoe
