// Attention over an int8 cache, NEON with dot products; the formula stands in kernels.h.
//
// Keys: four positions lie in the lanes of a register, four dims to a lane. Values: four dims lie
// in the lanes, four positions to a lane. Queries and weights come as two bytes, whose sums are
// joined as exact integers. A row's result does not depend on its neighbours.
#include "kernels_neon.h"
#include "neon_blocks.h"
#include "quantize_scale.h"

namespace mobilemoe {
namespace {

constexpr int64_t kTileRows = 4;
constexpr int64_t kPieces = kPositionBlock / kLanes;  // registers of one block's scores

// The state of one query row.
struct Row {
  const int8_t* high;
  const int8_t* low;
  float scale;
  int64_t positions;
  float* out;
  float largest, sum;
  int8x16_t weights[2][kPositionBlock / 16];  // of this block: high and low bytes
  float factor, weight_scale;
};

// Ones in the lanes of positions that a row sees, of piece `i` of a block with `count` of them.
inline uint32x4_t seen_lanes(int64_t i, int64_t count) {
  constexpr int32_t kFirst[kLanes] = {0, 1, 2, 3};
  const auto left = static_cast<int32_t>(count - i * kLanes);
  return vcltq_s32(vld1q_s32(kFirst), vdupq_n_s32(left));
}

inline float32x4_t where(uint32x4_t mask, float32x4_t x) {
  return vreinterpretq_f32_u32(vandq_u32(mask, vreinterpretq_u32_f32(x)));
}

// scores[r][p] of `Rows` rows and the 8 positions from `first` on.
template <int Rows>
inline void score_eight(const Int8Cache& cache, int64_t first, int64_t d, const Row* const rows[],
                        float32x4_t (*scores)[kPieces], int64_t piece) {
  const int8_t* keys = cache.keys + first / kKeyLanes * kKeyLanes * d + first % kKeyLanes * 4;
  int32x4_t high[Rows][2], low[Rows][2];
  for (int r = 0; r < Rows; ++r) {
    for (int p = 0; p < 2; ++p) high[r][p] = low[r][p] = vdupq_n_s32(0);
  }
  for (int64_t i = 0; i < d; i += 16) {
    int8x16_t q_high[Rows], q_low[Rows];
    for (int r = 0; r < Rows; ++r) {
      q_high[r] = vld1q_s8(rows[r]->high + i);
      q_low[r] = vld1q_s8(rows[r]->low + i);
    }
    for_lanes([&](auto lane) {
      constexpr int k = decltype(lane)::value;
      for (int p = 0; p < 2; ++p) {
        const int8x16_t key = vld1q_s8(keys + (i + 4 * k) * kKeyLanes + 16 * p);
        for (int r = 0; r < Rows; ++r) {
          high[r][p] = vdotq_laneq_s32(high[r][p], key, q_high[r], k);
          low[r][p] = vdotq_laneq_s32(low[r][p], key, q_low[r], k);
        }
      }
    });
  }
  for (int p = 0; p < 2; ++p) {
    const float32x4_t scales = vld1q_f32(cache.key_scales + first + p * kLanes);
    for (int r = 0; r < Rows; ++r) {
      const int32x4_t exact = vaddq_s32(vshlq_n_s32(high[r][p], 7), low[r][p]);
      const float32x4_t scale = vmulq_n_f32(scales, rows[r]->scale);
      scores[r][piece + p] = vmulq_f32(vcvtq_f32_s32(exact), scale);
    }
  }
}

// The block's scores as weights of the values, and what they do to the running sums.
inline void weigh_block(const Int8Cache& cache, int64_t first, const float32x4_t scores[kPieces],
                        Row& row, float32x4_t weights[kPieces]) {
  const int64_t count = row.positions - first < kPositionBlock ? row.positions - first
                                                               : kPositionBlock;
  const float32x4_t lowest = vdupq_n_f32(-std::numeric_limits<float>::infinity());
  float32x4_t masked[kPieces], largest = vdupq_n_f32(row.largest);
  for (int64_t i = 0; i < kPieces; ++i) {
    masked[i] = vbslq_f32(seen_lanes(i, count), scores[i], lowest);
    largest = vmaxq_f32(largest, masked[i]);
  }
  const float now = vmaxvq_f32(largest);
  row.factor = exp_inline(row.largest - now);
  row.largest = now;
  float32x4_t sum = vdupq_n_f32(0.0f);
  for (int64_t i = 0; i < kPieces; ++i) {
    const uint32x4_t seen = seen_lanes(i, count);
    const float32x4_t p = where(seen, exp_lanes(vsubq_f32(masked[i], vdupq_n_f32(now))));
    sum = vaddq_f32(sum, p);
    const float32x4_t scales = vld1q_f32(cache.value_scales + first + i * kLanes);
    weights[i] = where(seen, vmulq_f32(p, scales));
  }
  row.sum = row.sum * row.factor + vaddvq_f32(sum);
}

// The weights as integers of 14 bits and a sign, in two bytes: 128 high + low.
inline void quantize_weights(const float32x4_t weights[kPieces], Row& row) {
  uint32x4_t magnitude = vdupq_n_u32(0);
  for (int64_t i = 0; i < kPieces; ++i) {
    const uint32x4_t bits = vandq_u32(vreinterpretq_u32_f32(weights[i]), vdupq_n_u32(0x7FFFFFFFu));
    magnitude = vmaxq_u32(magnitude, bits);
  }
  const WeightScale scale = weight_scale(vmaxvq_u32(magnitude));
  row.weight_scale = scale.scale;
  for (int64_t i = 0; i < kPieces; i += 4) {
    int32x4_t high[4], low[4];
    for (int64_t j = 0; j < 4; ++j) {
      const float32x4_t scaled = scale.inverse == 0.0f ? vdupq_n_f32(0.0f)
                                                       : vmulq_n_f32(weights[i + j], scale.inverse);
      const int32x4_t integers = vcvtnq_s32_f32(scaled);  // to nearest, ties to even
      high[j] = vshrq_n_s32(integers, 7);
      low[j] = vandq_s32(integers, vdupq_n_s32(127));
    }
    row.weights[0][i / 4] = low_bytes(high);
    row.weights[1][i / 4] = low_bytes(low);
  }
}

// out = out * factor + weights * values for 8 dims of `Rows` rows.
template <int Rows>
inline void add_eight(const int8_t* values, int64_t d, int64_t i, const Row* const rows[]) {
  int32x4_t high[Rows][2], low[Rows][2];
  for (int r = 0; r < Rows; ++r) {
    for (int p = 0; p < 2; ++p) high[r][p] = low[r][p] = vdupq_n_s32(0);
  }
  for (int64_t n = 0; n < kPositionBlock; n += 16) {
    for_lanes([&](auto lane) {
      constexpr int k = decltype(lane)::value;
      for (int p = 0; p < 2; ++p) {
        const int8x16_t v = vld1q_s8(values + (n + 4 * k) * d + 4 * (i + p * kLanes));
        for (int r = 0; r < Rows; ++r) {
          high[r][p] = vdotq_laneq_s32(high[r][p], v, rows[r]->weights[0][n / 16], k);
          low[r][p] = vdotq_laneq_s32(low[r][p], v, rows[r]->weights[1][n / 16], k);
        }
      }
    });
  }
  for (int r = 0; r < Rows; ++r) {
    for (int p = 0; p < 2; ++p) {
      float* out = rows[r]->out + i + p * kLanes;
      const int32x4_t exact = vaddq_s32(vshlq_n_s32(high[r][p], 7), low[r][p]);
      const float32x4_t before = vmulq_n_f32(vld1q_f32(out), rows[r]->factor);
      vst1q_f32(out, vfmaq_n_f32(before, vcvtq_f32_s32(exact), rows[r]->weight_scale));
    }
  }
}

template <int Rows>
void attend_block(const Int8Cache& cache, int64_t first, int64_t d, Row* const rows[]) {
  float32x4_t scores[Rows][kPieces];
  for (int64_t n = 0; n < kPositionBlock; n += 8) {
    score_eight<Rows>(cache, first + n, d, rows, scores, n / kLanes);
  }
  for (int r = 0; r < Rows; ++r) {
    float32x4_t weights[kPieces];
    weigh_block(cache, first, scores[r], *rows[r], weights);
    quantize_weights(weights, *rows[r]);
  }
  for (int64_t i = 0; i < d; i += 8) add_eight<Rows>(cache.values + first * d, d, i, rows);
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

Row first_row(const Int8Queries& queries, int64_t r, float* out) {
  Row row{};
  row.high = queries.high + r * queries.d;
  row.low = queries.low + r * queries.d;
  row.scale = queries.scales[r];
  row.positions = queries.positions[r];
  row.out = out;
  row.largest = -std::numeric_limits<float>::infinity();
  for (int64_t i = 0; i < queries.d; ++i) out[i] = 0.0f;
  return row;
}

}  // namespace

void neon_dotprod_attend_int8(const Int8Cache& cache, const Int8Queries& queries,
                              float* const* out_R) {
  Row rows[kMaxQueryRows];
  int64_t longest = 0;
  for (int64_t r = 0; r < queries.rows; ++r) {
    rows[r] = first_row(queries, r, out_R[r]);
    longest = rows[r].positions > longest ? rows[r].positions : longest;
  }
  for (int64_t first = 0; first < longest; first += kPositionBlock) {
    attend_rows(cache, first, queries.d, rows, queries.rows);
  }
  for (int64_t r = 0; r < queries.rows; ++r) {
    const float inverse = 1.0f / rows[r].sum;
    for (int64_t i = 0; i < queries.d; ++i) out_R[r][i] *= inverse;
  }
}

}  // namespace mobilemoe
