// Attention over an int8 cache, AVX2; the formula stands in kernels.h.
//
// Keys: 16 positions lie in the lanes of two registers, four dims to a lane. Values: 16 dims lie
// in the lanes, four positions to a lane. Both are widened to int16, once for all rows of a tile;
// a query, 128 high + low, and a weight of 14 bits fit int16 as they are. A row's result does
// not depend on its neighbours.
#pragma once

#include "avx2_blocks.h"
#include "avx2_dot.h"
#include "kernel_tiles.h"

namespace mobilemoe {
namespace {

constexpr int64_t kTileRows = 4;
constexpr int64_t kMaxWidth = 512;                    // d
constexpr int64_t kPieces = kPositionBlock / kLanes;  // registers of one block's scores

// The state of one query row. Integers to be multiplied come in the order of `widen`: of every
// four, 0, 2, 1, 3.
struct QueryRow {
  alignas(32) int16_t query[kMaxWidth];
  alignas(32) int16_t weights[kPositionBlock];
  float scale;
  int64_t positions;
  float* out;
  float largest, sum;
  float factor, weight_scale;  // of this block
};

// Swaps the middle two of every four int16.
inline __m256i swap_middle(__m256i x) {
  constexpr int kSwap = _MM_SHUFFLE(3, 1, 2, 0);
  return _mm256_shufflehi_epi16(_mm256_shufflelo_epi16(x, kSwap), kSwap);
}

// Four int8 to a lane -> two int16 to a lane: out[0] has 0 and 2, out[1] has 1 and 3.
inline void widen(__m256i bytes, __m256i out[2]) {
  out[0] = _mm256_srai_epi16(_mm256_slli_epi16(bytes, 8), 8);
  out[1] = _mm256_srai_epi16(bytes, 8);
}

// sums[r] = sum_i bytes[i] * factors_r[i] for the 16 lanes of 64 bytes: `count` integers, every
// four of which lie together; four of them to the next four it is `stride` bytes.
template <int Rows>
inline void multiply_lanes(const int8_t* bytes, int64_t stride, int64_t count,
                           const int16_t* const factors[Rows], __m256i sums[Rows][2]) {
  for (int r = 0; r < Rows; ++r) sums[r][0] = sums[r][1] = _mm256_setzero_si256();
  for (int64_t i = 0; i < count; i += 4, bytes += stride) {
    __m256i left[2], right[2];
    widen(load_32(bytes), left);
    widen(load_32(bytes + 32), right);
    for (int r = 0; r < Rows; ++r) {
      for (int n = 0; n < 2; ++n) {
        const __m256i pair = broadcast_quad(factors[r] + i + 2 * n);
        sums[r][0] = add_pairs(sums[r][0], left[n], pair);
        sums[r][1] = add_pairs(sums[r][1], right[n], pair);
      }
    }
  }
}

// scores[r][64] of `Rows` rows and one block.
template <int Rows>
inline void score_block(const Int8Cache& cache, int64_t first, int64_t d,
                        const QueryRow* const rows[], __m256 (*scores)[kPieces]) {
  const int16_t* queries[Rows];
  for (int r = 0; r < Rows; ++r) queries[r] = rows[r]->query;
  for (int64_t piece = 0; piece < kPieces; piece += 2) {
    const int64_t position = first + piece * kLanes;
    __m256i exact[Rows][2];
    multiply_lanes<Rows>(cache.keys + position * d, 4 * kKeyLanes, d, queries, exact);
    for (int h = 0; h < 2; ++h) {
      const __m256 scales = _mm256_loadu_ps(cache.key_scales + position + h * kLanes);
      for (int r = 0; r < Rows; ++r) {
        const __m256 scale = _mm256_mul_ps(scales, _mm256_set1_ps(rows[r]->scale));
        scores[r][piece + h] = _mm256_mul_ps(_mm256_cvtepi32_ps(exact[r][h]), scale);
      }
    }
  }
}

// All bits of the lanes that see a position: `count` from the piece's first lane on.
inline __m256 seen_lanes(int64_t count) {
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const auto bound = static_cast<int>(smaller(count, kPositionBlock));
  return _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(bound), lanes));
}

// weights[64] as integers of 14 bits, and the scale that goes with them.
inline void store_weights(const __m256 weights[kPieces], QueryRow& row) {
  __m256 largest = _mm256_setzero_ps();
  const __m256i mask = _mm256_set1_epi32(0x7FFFFFFF);
  for (int64_t i = 0; i < kPieces; ++i) {
    const __m256i bits = _mm256_and_si256(_mm256_castps_si256(weights[i]), mask);
    largest = _mm256_castsi256_ps(_mm256_max_epi32(_mm256_castps_si256(largest), bits));
  }
  const WeightScale scale = weight_scale(largest_lane_bits(_mm256_castps_si256(largest)));
  row.weight_scale = scale.scale;
  const __m256i usable = _mm256_set1_epi32(scale.inverse == 0.0f ? 0 : -1);
  const __m256 inverse = _mm256_set1_ps(scale.inverse);
  for (int64_t i = 0; i < kPieces; i += 2) {
    const __m256i low = _mm256_cvtps_epi32(_mm256_mul_ps(weights[i], inverse));
    const __m256i high = _mm256_cvtps_epi32(_mm256_mul_ps(weights[i + 1], inverse));
    const __m256i packed = _mm256_packs_epi32(_mm256_and_si256(low, usable),
                                              _mm256_and_si256(high, usable));
    const __m256i ordered = _mm256_permute4x64_epi64(packed, _MM_SHUFFLE(3, 1, 2, 0));
    store_32(row.weights + i * kLanes, swap_middle(ordered));
  }
}

// The block's weights, and what they do to the running sums.
inline void weigh_block(const Int8Cache& cache, int64_t first, const __m256 scores[kPieces],
                        QueryRow& row) {
  const int64_t count = row.positions - first;
  const __m256 lowest = _mm256_set1_ps(-std::numeric_limits<float>::infinity());
  __m256 masked[kPieces];
  __m256 largest = _mm256_set1_ps(row.largest);
  for (int64_t i = 0; i < kPieces; ++i) {
    masked[i] = _mm256_blendv_ps(lowest, scores[i], seen_lanes(count - i * kLanes));
    largest = _mm256_max_ps(largest, masked[i]);
  }
  const float now = largest_lane(largest);
  row.factor = exp_inline(row.largest - now);
  row.largest = now;
  __m256 sum = _mm256_setzero_ps(), weights[kPieces];
  for (int64_t i = 0; i < kPieces; ++i) {
    const __m256 seen = seen_lanes(count - i * kLanes);
    const __m256 p = exp_lanes(_mm256_sub_ps(masked[i], _mm256_set1_ps(now)));
    const __m256 visible = _mm256_and_ps(p, seen);
    sum = _mm256_add_ps(sum, visible);
    const __m256 value_scales = _mm256_loadu_ps(cache.value_scales + first + i * kLanes);
    weights[i] = _mm256_and_ps(_mm256_mul_ps(visible, value_scales), seen);
  }
  row.sum = row.sum * row.factor + sum_lanes(sum);
  store_weights(weights, row);
}

// out = out * factor + weights * values for `Rows` rows.
template <int Rows>
inline void add_values(const Int8Cache& cache, int64_t first, int64_t d,
                       const QueryRow* const rows[]) {
  const int16_t* weights[Rows];
  for (int r = 0; r < Rows; ++r) weights[r] = rows[r]->weights;
  for (int64_t i = 0; i < d; i += 2 * kLanes) {
    __m256i exact[Rows][2];
    multiply_lanes<Rows>(cache.values + first * d + 4 * i, 4 * d, kPositionBlock, weights, exact);
    for (int r = 0; r < Rows; ++r) {
      for (int h = 0; h < 2; ++h) {
        float* out = rows[r]->out + i + h * kLanes;
        const __m256 before = _mm256_mul_ps(_mm256_loadu_ps(out),
                                            _mm256_set1_ps(rows[r]->factor));
        const __m256 scale = _mm256_set1_ps(rows[r]->weight_scale);
        const __m256 sums = _mm256_cvtepi32_ps(exact[r][h]);
        _mm256_storeu_ps(out, _mm256_fmadd_ps(sums, scale, before));
      }
    }
  }
}

template <int Rows>
void attend_block(const Int8Cache& cache, int64_t first, int64_t d, QueryRow* const rows[]) {
  __m256 scores[Rows][kPieces];
  score_block<Rows>(cache, first, d, rows, scores);
  for (int r = 0; r < Rows; ++r) weigh_block(cache, first, scores[r], *rows[r]);
  add_values<Rows>(cache, first, d, rows);
}

// The rows that see anything of the block.
void attend_rows(const Int8Cache& cache, int64_t first, int64_t d, QueryRow* rows, int64_t count) {
  QueryRow* seeing[kMaxQueryRows];
  int64_t n = 0;
  for (int64_t r = 0; r < count; ++r) {
    if (rows[r].positions > first) seeing[n++] = &rows[r];
  }
  int64_t r = 0;
  for (; r + kTileRows <= n; r += kTileRows) attend_block<kTileRows>(cache, first, d, seeing + r);
  switch (n - r) {
    case 3: attend_block<3>(cache, first, d, seeing + r); break;
    case 2: attend_block<2>(cache, first, d, seeing + r); break;
    case 1: attend_block<1>(cache, first, d, seeing + r); break;
    default: break;
  }
}

void begin_row(const Int8Queries& queries, int64_t r, float* out, QueryRow& row) {
  const int64_t d = queries.d;
  for (int64_t i = 0; i < d; i += 2 * kLanes) {
    const __m256i high = _mm256_cvtepi8_epi16(load_16(queries.high + r * d + i));
    const __m256i low = _mm256_cvtepi8_epi16(load_16(queries.low + r * d + i));
    const __m256i query = _mm256_add_epi16(_mm256_slli_epi16(high, 7), low);
    store_32(row.query + i, swap_middle(query));
    _mm256_storeu_ps(out + i, _mm256_setzero_ps());
    _mm256_storeu_ps(out + i + kLanes, _mm256_setzero_ps());
  }
  row.scale = queries.scales[r];
  row.positions = queries.positions[r];
  row.out = out;
  row.largest = -std::numeric_limits<float>::infinity();
  row.sum = 0.0f;
}

void attend_int8(const Int8Cache& cache, const Int8Queries& queries, float* const* out_R) {
  const int64_t d = queries.d;
  QueryRow rows[kMaxQueryRows];
  int64_t longest = 0;
  for (int64_t r = 0; r < queries.rows; ++r) {
    begin_row(queries, r, out_R[r], rows[r]);
    longest = rows[r].positions > longest ? rows[r].positions : longest;
  }
  for (int64_t first = 0; first < longest; first += kPositionBlock) {
    attend_rows(cache, first, d, rows, queries.rows);
  }
  for (int64_t r = 0; r < queries.rows; ++r) {
    const __m256 inverse = _mm256_set1_ps(1.0f / rows[r].sum);
    for (int64_t i = 0; i < d; i += kLanes) {
      _mm256_storeu_ps(out_R[r] + i, _mm256_mul_ps(_mm256_loadu_ps(out_R[r] + i), inverse));
    }
  }
}

}  // namespace
}  // namespace mobilemoe
