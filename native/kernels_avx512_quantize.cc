// Activations with AVX-512: to int8, the same integers and scales as the portable functions, and
// SwiGLU.
#include "avx512_blocks.h"
#include "kernels_avx512.h"

namespace mobilemoe {
namespace {

// 16 bytes of natural order in each half -> the 16 even elements, then the 16 odd ones.
inline __m256i even_odd_order(__m128i first, __m128i second) {
  const __m256i pick = _mm256_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15,  //
                                        0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);
  const __m256i halves = _mm256_shuffle_epi8(_mm256_set_m128i(second, first), pick);
  return _mm256_permute4x64_epi64(halves, _MM_SHUFFLE(3, 1, 2, 0));
}

}  // namespace

void avx512_quantize_row(const float* x_I, int64_t width, int8_t* values, float* scales,
                         int32_t* sums, float* rest_I) {
  for (int64_t block = 0; block < width / kGroupSize; ++block) {
    const __m512 a = _mm512_loadu_ps(x_I + block * kGroupSize);
    const __m512 b = _mm512_loadu_ps(x_I + block * kGroupSize + kLanes);
    const BlockScale scale = block_scale(largest_magnitude_bits(a, b));
    const __m512 inverse = _mm512_set1_ps(scale.inverse);
    // An inverse of 0 marks a block without finite size; 0 * NaN must not reach the integers.
    const __mmask16 finite = scale.inverse == 0.0f ? 0 : 0xFFFF;
    const __m512i low = _mm512_maskz_cvtps_epi32(finite, _mm512_mul_ps(a, inverse));
    const __m512i high = _mm512_maskz_cvtps_epi32(finite, _mm512_mul_ps(b, inverse));
    auto* out = reinterpret_cast<__m256i*>(values + block * kGroupSize);
    _mm256_storeu_si256(out, even_odd_order(_mm512_cvtepi32_epi8(low), _mm512_cvtepi32_epi8(high)));
    scales[block] = scale.scale;
    sums[block] = _mm512_reduce_add_epi32(_mm512_add_epi32(low, high));
    if (rest_I == nullptr) continue;
    const __m512 step = _mm512_set1_ps(scale.scale);
    float* rest = rest_I + block * kGroupSize;
    const __m512 taken[2] = {_mm512_mul_ps(_mm512_cvtepi32_ps(low), step),
                             _mm512_mul_ps(_mm512_cvtepi32_ps(high), step)};
    _mm512_storeu_ps(rest, _mm512_sub_ps(a, taken[0]));
    _mm512_storeu_ps(rest + kLanes, _mm512_sub_ps(b, taken[1]));
  }
}

void avx512_scale_row(const float* x_I, int64_t width, float* values_I, float* scales) {
  for (int64_t first = 0; first < width; first += kGroupSize) {
    const __m512 a = _mm512_loadu_ps(x_I + first), b = _mm512_loadu_ps(x_I + first + kLanes);
    const BlockScale scale = block_scale(largest_magnitude_bits(a, b));
    const __m512 inverse = _mm512_set1_ps(scale.inverse);
    const __mmask16 finite = scale.inverse == 0.0f ? 0 : 0xFFFF;
    _mm512_storeu_ps(values_I + first, _mm512_maskz_mul_ps(finite, a, inverse));
    _mm512_storeu_ps(values_I + first + kLanes, _mm512_maskz_mul_ps(finite, b, inverse));
    scales[first / kGroupSize] = scale.scale;
  }
}

void avx512_silu_multiply(const float* gate, const float* up, int64_t width, float* out) {
  for (int64_t i = 0; i < width; i += kLanes) {
    const __mmask16 mask = first_lanes(width - i);
    const __m512 g = _mm512_maskz_loadu_ps(mask, gate + i);
    const __m512 u = _mm512_maskz_loadu_ps(mask, up + i);
    const __m512 exponential = exp_lanes(_mm512_sub_ps(_mm512_setzero_ps(), g));
    const __m512 silu = _mm512_div_ps(g, _mm512_add_ps(_mm512_set1_ps(1.0f), exponential));
    _mm512_mask_storeu_ps(out + i, mask, _mm512_mul_ps(silu, u));
  }
}

}  // namespace mobilemoe
