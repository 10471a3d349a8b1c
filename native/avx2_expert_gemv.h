// y = x w for routed experts and one token, AVX2; the formula stands in kernels.h.
//
// Whole rows of w are read in the order of memory. 8 groups of outputs get their activations at
// once, one group to a lane, four inputs in it; then the outputs of two groups at a time lie in
// the lanes.
#pragma once

#include "avx2_blocks.h"
#include "avx2_dot.h"
#include "kernel_tiles.h"

namespace mobilemoe {
namespace {

constexpr int64_t kFoldGroups = kLanes;         // groups whose activations are made at once
constexpr int64_t kPassGroups = 48;             // groups whose sums are held at once
constexpr int64_t kGroupBytes = kGroupSize / 2;

// Adding it to a float of less than 2^22 leaves the nearest integer, ties to even, in the low
// bits; with a fused multiplication before it, the product is rounded once.
constexpr float kMagic = 12582912.0f;

// The activations of one block for 8 groups: b[q] has in lane g the four int8 of inputs
// 4q to 4q + 3.
struct GroupBlock {
  __m256i quads[kQuads];
  __m256i excess;  // -8 * sum of all 32
  __m256 scales;
};

struct FoldScales {
  __m256 scales, inverses;
};

// The rule of fold_scale for 8 groups at once.
inline FoldScales fold_scales(__m128i magnitude_bits) {
  const __m128i number = _mm_cmpgt_epi16(_mm_set1_epi16(0x7C00), magnitude_bits);
  const __m128i positive = _mm_cmpgt_epi16(magnitude_bits, _mm_setzero_si128());
  const __m256 is_number = _mm256_castsi256_ps(_mm256_cvtepi16_epi32(number));
  const __m256 usable =
      _mm256_castsi256_ps(_mm256_cvtepi16_epi32(_mm_and_si128(number, positive)));
  const __m256 scales = _mm256_cvtph_ps(magnitude_bits);
  const __m256 nan = _mm256_set1_ps(std::numeric_limits<float>::quiet_NaN());
  return {_mm256_blendv_ps(nan, scales, is_number),
          _mm256_and_ps(usable, _mm256_div_ps(_mm256_set1_ps(1.0f), scales))};
}

// a, b, c, d: integers in the low byte of every lane, anything above.
inline __m256i join_bytes(__m256i a, __m256i b, __m256i c, __m256i d) {
  constexpr int kOddWords = 0xAA;
  const __m256i ac = _mm256_blend_epi16(a, _mm256_slli_epi32(c, 16), kOddWords);
  const __m256i bd = _mm256_blend_epi16(b, _mm256_slli_epi32(d, 16), kOddWords);
  return _mm256_or_si256(_mm256_and_si256(ac, _mm256_set1_epi16(0xFF)), _mm256_slli_epi16(bd, 8));
}

inline GroupBlock fold_groups(const uint8_t* scales, int64_t stride, const HalfMask& mask,
                              const float* values, float scale) {
  __m128i halves[kGroupSize];
  __m128i largest = _mm_setzero_si128();
  for (int64_t i = 0; i < kGroupSize; ++i) {
    halves[i] = load_halves(scales + i * stride, mask);
    largest = _mm_max_epi16(largest, _mm_and_si128(halves[i], _mm_set1_epi16(0x7FFF)));
  }
  const FoldScales fold = fold_scales(largest);
  GroupBlock out;
  out.scales = _mm256_mul_ps(_mm256_set1_ps(scale), fold.scales);
  const __m256i zero = _mm256_setzero_si256();
  __m256i sum = begin_sum(zero);
  for (int64_t q = 0; q < kQuads; ++q) {
    __m256i b[4];
    for (int64_t i = 0; i < 4; ++i) {
      const __m256 ratio = _mm256_mul_ps(_mm256_cvtph_ps(halves[4 * q + i]), fold.inverses);
      b[i] = _mm256_castps_si256(_mm256_fmadd_ps(_mm256_broadcast_ss(values + 4 * q + i), ratio,
                                                 _mm256_set1_ps(kMagic)));
    }
    out.quads[q] = join_bytes(b[0], b[1], b[2], b[3]);
    sum = add_quads(sum, _mm256_set1_epi8(1), out.quads[q]);
  }
  out.excess = _mm256_sub_epi32(zero, _mm256_slli_epi32(finish_sum(sum, zero), 3));
  return out;
}

// Each half of the results holds four outputs of its own group: register 2p + n has the outputs
// 2 (4p + j) + n, j = 0 to 3.
inline void unpack_quad(const __m256i rows[4], __m256i out[8]) {
  const __m256i low01 = _mm256_unpacklo_epi8(rows[0], rows[1]);
  const __m256i low23 = _mm256_unpacklo_epi8(rows[2], rows[3]);
  const __m256i high01 = _mm256_unpackhi_epi8(rows[0], rows[1]);
  const __m256i high23 = _mm256_unpackhi_epi8(rows[2], rows[3]);
  const __m256i quads[4] = {
      _mm256_unpacklo_epi16(low01, low23), _mm256_unpackhi_epi16(low01, low23),
      _mm256_unpacklo_epi16(high01, high23), _mm256_unpackhi_epi16(high01, high23)};
  for (int p = 0; p < 4; ++p) {
    out[2 * p] = low_nibbles(quads[p]);
    out[2 * p + 1] = high_nibbles(quads[p]);
  }
}

// One row of `Groups` <= 2 groups, as packed nibbles of value + 8.
template <int Groups>
inline __m256i load_groups(const uint8_t* bytes) {
  if constexpr (Groups == 2) return offset_nibbles(load_32(bytes));
  return offset_nibbles(_mm256_zextsi128_si256(load_16(bytes)));
}

// sums[8] += one block of inputs times the columns of `Groups` groups, the first of them group
// `g` of `b`.
template <int Groups>
inline void multiply_groups(const uint8_t* bytes, int64_t stride, const GroupBlock& b, int64_t g,
                            __m256 sums[8]) {
  const __m256i lanes = _mm256_add_epi32(_mm256_set1_epi32(static_cast<int>(g)),
                                         _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1));
  const __m256i excess = _mm256_permutevar8x32_epi32(b.excess, lanes);
  __m256i exact[8];
  for (__m256i& sum : exact) sum = begin_sum(excess);
  for (int64_t q = 0; q < kQuads; ++q) {
    __m256i rows[4], weights[8];
    for (int64_t i = 0; i < 4; ++i) rows[i] = load_groups<Groups>(bytes + (4 * q + i) * stride);
    unpack_quad(rows, weights);
    const __m256i activations = _mm256_permutevar8x32_epi32(b.quads[q], lanes);
    for (int j = 0; j < 8; ++j) exact[j] = add_quads(exact[j], weights[j], activations);
  }
  const __m256 scales = _mm256_permutevar8x32_ps(b.scales, lanes);
  for (int j = 0; j < 8; ++j) {
    const __m256 products = _mm256_cvtepi32_ps(finish_sum(exact[j], excess));
    sums[j] = _mm256_add_ps(sums[j], _mm256_mul_ps(products, scales));
  }
}

// Puts the outputs of one or two groups into their natural order.
inline void store_groups(const __m256 sums[8], int64_t groups, float* y) {
  for (int p = 0; p < 4; ++p) {
    const __m256 low = _mm256_unpacklo_ps(sums[2 * p], sums[2 * p + 1]);
    const __m256 high = _mm256_unpackhi_ps(sums[2 * p], sums[2 * p + 1]);
    _mm256_storeu_ps(y + 8 * p, _mm256_permute2f128_ps(low, high, 0x20));
    if (groups < 2) continue;
    _mm256_storeu_ps(y + kGroupSize + 8 * p, _mm256_permute2f128_ps(low, high, 0x31));
  }
}

// sums += one block of inputs times the groups `begin` to `end`.
inline void add_input_block(const Int4Matrix& w, int64_t input, const float* values, float scale,
                            int64_t begin, int64_t end, __m256 (*sums)[8]) {
  const int64_t row = w.columns / 2, scale_row = w.columns / kGroupSize * 2;
  // In the order of memory, as if all columns were asked for, which is the common case.
  const uint8_t* next = row_bytes(w, input) + kGroupSize * row;
  const uint8_t* next_scales = row_scales(w, input) + kGroupSize * scale_row;
  const bool ahead = input + kGroupSize < w.rows;
  for (int64_t group = begin; group < end; group += kFoldGroups) {
    const int64_t count = smaller(kFoldGroups, end - group);
    if (ahead) prefetch(next_scales + (group - begin) * 2 * kGroupSize, count * 2 * kGroupSize);
    const GroupBlock b = fold_groups(row_scales(w, input) + 2 * group, scale_row,
                                     half_mask(count), values, scale);
    for (int64_t g = 0; g < count; g += 2) {
      const uint8_t* bytes = row_bytes(w, input) + (group + g) * kGroupBytes;
      if (ahead) prefetch(next + (group + g - begin) * kGroupBytes * kGroupSize, 32 * kGroupSize);
      const auto multiply = count - g > 1 ? multiply_groups<2> : multiply_groups<1>;
      multiply(bytes, row, b, g, sums[(group + g - begin) / 2]);
    }
  }
}

// One token, up to kPassGroups groups from `begin` on.
void expert_gemv_pass(const Int4Matrix& w, const float* values, const float* scales, int64_t begin,
                      int64_t end, float* y) {
  __m256 sums[kPassGroups / 2][8];
  const int64_t pairs = (end - begin + 1) / 2;
  for (int64_t pair = 0; pair < pairs; ++pair) {
    for (int j = 0; j < 8; ++j) sums[pair][j] = _mm256_setzero_ps();
  }
  for (int64_t input = 0; input < w.rows; input += kGroupSize) {
    add_input_block(w, input, values + input, scales[input / kGroupSize], begin, end, sums);
  }
  for (int64_t pair = 0; pair < pairs; ++pair) {
    const int64_t group = begin + 2 * pair;
    store_groups(sums[pair], end - group, y + group * kGroupSize);
  }
}

void expert_gemv(const Int4Matrix& w, const ScaledRows& x, const int32_t* rows, int64_t slots,
                 int64_t begin, int64_t end, float* y_SO) {
  for (int64_t s = 0; s < slots; ++s) {
    const float* values = x.values + rows[s] * x.width;
    const float* scales = x.scales + rows[s] * (x.width / kGroupSize);
    for (int64_t first = begin; first < end; first += kPassGroups) {
      const int64_t last = smaller(end, first + kPassGroups);
      expert_gemv_pass(w, values, scales, first, last, y_SO + s * w.columns);
    }
  }
}

}  // namespace
}  // namespace mobilemoe
