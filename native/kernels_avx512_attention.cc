// Attention over an int8 cache, AVX-512 VNNI; the formula stands in kernels.h.
//
// Keys: 16 positions lie in the lanes of a register, four dims to a lane. Values: 16 dims lie in
// the lanes, four positions to a lane. Queries and weights come as two bytes of 7 bits, whose
// sums are joined as exact integers. A row's result does not depend on its neighbours.
#include "avx512_blocks.h"
#include "kernels_avx512.h"

namespace mobilemoe {
namespace {

constexpr int64_t kTileRows = 4;
constexpr int64_t kPieces = kPositionBlock / kLanes;  // registers of one block's scores

// The state of one query row.
struct Row {
  const int8_t* high;
  const int8_t* low;
  float scale;
  int32_t high_start, low_start;  // -128 * sum: keys are made unsigned by adding 128
  int64_t positions;
  float* out;
  float largest, sum;
  alignas(64) uint8_t weights[2][kPositionBlock];  // high and low bytes
  float factor, weight_scale;                      // of this block
};

inline int32_t sum_of(const int8_t* values, int64_t d) {
  __m512i sum = _mm512_setzero_si512();
  for (int64_t i = 0; i < d; i += 16) {
    sum = _mm512_add_epi32(sum, _mm512_cvtepi8_epi32(load_16(values + i)));
  }
  return _mm512_reduce_add_epi32(sum);
}

// scores[r][64] of `Rows` rows and one block, two registers of positions at a time, so that a
// broadcast serves both.
template <int Rows>
inline void score_block(const Int8Cache& cache, int64_t first, int64_t d, const Row* const rows[],
                        __m512 (*scores)[kPieces]) {
  const __m512i flip = _mm512_set1_epi8(static_cast<char>(0x80));
  for (int64_t piece = 0; piece < kPieces; piece += 2) {
    const int8_t* keys = cache.keys + (first + piece * kLanes) * d;
    __m512i high[Rows][2], low[Rows][2];
    for (int r = 0; r < Rows; ++r) {
      high[r][0] = high[r][1] = _mm512_set1_epi32(rows[r]->high_start);
      low[r][0] = low[r][1] = _mm512_set1_epi32(rows[r]->low_start);
    }
    for (int64_t i = 0; i < d; i += 4) {
      const __m512i k0 = _mm512_xor_si512(load_bytes(keys + i * kLanes), flip);
      const __m512i k1 = _mm512_xor_si512(load_bytes(keys + (d + i) * kLanes), flip);
      for (int r = 0; r < Rows; ++r) {
        const __m512i q_high = broadcast_quad(rows[r]->high + i);
        const __m512i q_low = broadcast_quad(rows[r]->low + i);
        high[r][0] = _mm512_dpbusd_epi32(high[r][0], k0, q_high);
        high[r][1] = _mm512_dpbusd_epi32(high[r][1], k1, q_high);
        low[r][0] = _mm512_dpbusd_epi32(low[r][0], k0, q_low);
        low[r][1] = _mm512_dpbusd_epi32(low[r][1], k1, q_low);
      }
    }
    for (int half = 0; half < 2; ++half) {
      const float* key_scales = cache.key_scales + first + (piece + half) * kLanes;
      const __m512 scales = _mm512_loadu_ps(key_scales);
      for (int r = 0; r < Rows; ++r) {
        const __m512i exact = _mm512_add_epi32(_mm512_slli_epi32(high[r][half], 7), low[r][half]);
        const __m512 scale = _mm512_mul_ps(scales, _mm512_set1_ps(rows[r]->scale));
        scores[r][piece + half] = _mm512_mul_ps(_mm512_cvtepi32_ps(exact), scale);
      }
    }
  }
}

// The block's weights as integers of 14 bits, and what they do to the running sums.
inline void weigh_block(const Int8Cache& cache, int64_t first, const __m512 scores[kPieces],
                        Row& row) {
  const int64_t count = row.positions - first;
  const __m512 lowest = _mm512_set1_ps(-std::numeric_limits<float>::infinity());
  __m512 masked[kPieces];
  __m512 largest = _mm512_set1_ps(row.largest);
  for (int64_t i = 0; i < kPieces; ++i) {
    const __mmask16 seen = count > i * kLanes ? first_lanes(count - i * kLanes) : __mmask16{0};
    masked[i] = _mm512_mask_mov_ps(lowest, seen, scores[i]);
    largest = _mm512_max_ps(largest, masked[i]);
  }
  const float now = _mm512_reduce_max_ps(largest);
  row.factor = now == row.largest ? 1.0f : exp_inline(row.largest - now);  // mostly 1: e^0
  row.largest = now;
  __m512 sum = _mm512_setzero_ps(), weights[kPieces];
  __m512i magnitude = _mm512_setzero_si512();
  for (int64_t i = 0; i < kPieces; ++i) {
    const __mmask16 seen = count > i * kLanes ? first_lanes(count - i * kLanes) : __mmask16{0};
    const __m512 p = exp_lanes(_mm512_sub_ps(masked[i], _mm512_set1_ps(now)));
    const __m512 visible = _mm512_maskz_mov_ps(seen, p);
    sum = _mm512_add_ps(sum, visible);
    const __m512 value_scales = _mm512_loadu_ps(cache.value_scales + first + i * kLanes);
    weights[i] = _mm512_maskz_mul_ps(seen, visible, value_scales);
    const __m512i bits = _mm512_and_si512(_mm512_castps_si512(weights[i]),
                                          _mm512_set1_epi32(0x7FFFFFFF));
    magnitude = _mm512_max_epu32(magnitude, bits);
  }
  row.sum = row.sum * row.factor + _mm512_reduce_add_ps(sum);
  const WeightScale scale = weight_scale(_mm512_reduce_max_epu32(magnitude));
  row.weight_scale = scale.scale;
  const __mmask16 usable = scale.inverse == 0.0f ? 0 : 0xFFFF;
  for (int64_t i = 0; i < kPieces; ++i) {
    const __m512 scaled = _mm512_mul_ps(weights[i], _mm512_set1_ps(scale.inverse));
    const __m512i integers = _mm512_maskz_cvtps_epi32(usable, scaled);
    const __m512i low = _mm512_and_si512(integers, _mm512_set1_epi32(127));
    _mm_store_si128(reinterpret_cast<__m128i*>(row.weights[0] + i * kLanes),
                    _mm512_cvtepi32_epi8(_mm512_srli_epi32(integers, 7)));
    _mm_store_si128(reinterpret_cast<__m128i*>(row.weights[1] + i * kLanes),
                    _mm512_cvtepi32_epi8(low));
  }
}

// out = out * factor + weights * values for `Rows` rows and `Parts` registers of dims from i on.
template <int Rows, int Parts>
inline void add_values(const int8_t* values, int64_t i, int64_t d, const Row* const rows[]) {
  __m512i high[Rows][Parts], low[Rows][Parts];
  for (int r = 0; r < Rows; ++r) {
    for (int p = 0; p < Parts; ++p) high[r][p] = low[r][p] = _mm512_setzero_si512();
  }
  for (int64_t n = 0; n < kPositionBlock; n += 4) {
    __m512i v[Parts];
    for (int p = 0; p < Parts; ++p) v[p] = load_bytes(values + n * d + 4 * (i + p * kLanes));
    for (int r = 0; r < Rows; ++r) {
      const __m512i w_high = broadcast_quad(rows[r]->weights[0] + n);
      const __m512i w_low = broadcast_quad(rows[r]->weights[1] + n);
      for (int p = 0; p < Parts; ++p) {
        high[r][p] = _mm512_dpbusd_epi32(high[r][p], w_high, v[p]);
        low[r][p] = _mm512_dpbusd_epi32(low[r][p], w_low, v[p]);
      }
    }
  }
  for (int r = 0; r < Rows; ++r) {
    for (int p = 0; p < Parts; ++p) {
      float* out = rows[r]->out + i + p * kLanes;
      const __m512i exact = _mm512_add_epi32(_mm512_slli_epi32(high[r][p], 7), low[r][p]);
      const __m512 before = _mm512_mul_ps(_mm512_loadu_ps(out), _mm512_set1_ps(rows[r]->factor));
      const __m512 scale = _mm512_set1_ps(rows[r]->weight_scale);
      _mm512_storeu_ps(out, _mm512_fmadd_ps(_mm512_cvtepi32_ps(exact), scale, before));
    }
  }
}

template <int Rows>
void attend_block(const Int8Cache& cache, int64_t first, int64_t d, Row* const rows[]) {
  __m512 scores[Rows][kPieces];
  score_block<Rows>(cache, first, d, rows, scores);
  for (int r = 0; r < Rows; ++r) weigh_block(cache, first, scores[r], *rows[r]);
  const int8_t* values = cache.values + first * d;
  int64_t i = 0;
  for (; i + 2 * kLanes <= d; i += 2 * kLanes) add_values<Rows, 2>(values, i, d, rows);
  if (i < d) add_values<Rows, 1>(values, i, d, rows);
}

// The rows that see anything of the block.
void attend_rows(const Int8Cache& cache, int64_t first, int64_t d, Row* rows, int64_t count) {
  Row* seeing[kMaxQueryRows];
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

}  // namespace

void avx512_attend_int8(const Int8Cache& cache, const Int8Queries& queries, float* const* out_R) {
  const int64_t d = queries.d;
  Row rows[kMaxQueryRows];
  int64_t longest = 0;
  for (int64_t r = 0; r < queries.rows; ++r) {
    Row& row = rows[r];
    row.high = queries.high + r * d;
    row.low = queries.low + r * d;
    row.scale = queries.scales[r];
    row.high_start = -128 * sum_of(row.high, d);
    row.low_start = -128 * sum_of(row.low, d);
    row.positions = queries.positions[r];
    row.out = out_R[r];
    row.largest = -std::numeric_limits<float>::infinity();
    row.sum = 0.0f;
    for (int64_t i = 0; i < d; i += kLanes) _mm512_storeu_ps(row.out + i, _mm512_setzero_ps());
    longest = row.positions > longest ? row.positions : longest;
  }
  for (int64_t first = 0; first < longest; first += kPositionBlock) {
    attend_rows(cache, first, d, rows, queries.rows);
  }
  for (int64_t r = 0; r < queries.rows; ++r) {
    const __m512 inverse = _mm512_set1_ps(1.0f / rows[r].sum);
    for (int64_t i = 0; i < d; i += kLanes) {
      _mm512_storeu_ps(out_R[r] + i, _mm512_mul_ps(_mm512_loadu_ps(out_R[r] + i), inverse));
    }
  }
}

}  // namespace mobilemoe
