// y = w x for weights grouped along the input axis, NEON with dot products.
#include "kernels_neon.h"
#include "neon_linear_gemm.h"

namespace mobilemoe {
namespace {

// Four rows of w lie in the lanes of a register, four inputs to a lane; a lane of activations
// meets all of them.
struct DotForm {
  // out[4 half + k][h]: quad k of the even or odd inputs, rows 4h to 4h + 3.
  static void arrange(const int8x16_t halves[kRows][2], int8x16_t out[kRows][2]) {
    for (int half = 0; half < 2; ++half) {
      for (int h = 0; h < 2; ++h) {
        int8x16_t x[4];
        for (int r = 0; r < 4; ++r) x[r] = halves[4 * h + r][half];
        transpose(x);
        for (int k = 0; k < 4; ++k) out[4 * half + k][h] = x[k];
      }
    }
  }

  template <int Tokens>
  static void multiply(const int8x16_t w[kRows][2], const int8_t* values, int64_t width,
                       int32x4_t sums[Tokens][2]) {
    for (int t = 0; t < Tokens; ++t) sums[t][0] = sums[t][1] = vdupq_n_s32(0);
    for (int half = 0; half < 2; ++half) {
      int8x16_t x[Tokens];
      for (int t = 0; t < Tokens; ++t) x[t] = vld1q_s8(values + t * width + 16 * half);
      for_lanes([&](auto lane) {
        constexpr int k = decltype(lane)::value;
        for (int t = 0; t < Tokens; ++t) {
          sums[t][0] = vdotq_laneq_s32(sums[t][0], w[4 * half + k][0], x[t], k);
          sums[t][1] = vdotq_laneq_s32(sums[t][1], w[4 * half + k][1], x[t], k);
        }
      });
    }
  }
};

// scales[b] of `count` <= 4 blocks, for four rows.
inline void load_scales(const Int4Matrix& w, const int64_t rows[kLanes], int64_t block,
                        int64_t count, float32x4_t scales[kLanes]) {
  for (int64_t r = 0; r < kLanes; ++r) {
    scales[r] = floats_of(load_halves(row_scales(w, rows[r]) + 2 * block, count));
  }
  transpose(scales);
}

// 16 times the exact sums of one block for four rows.
inline int32x4_t block_sums(const int8x16_t low[kLanes], const int8x16_t high[kLanes],
                            const int8_t* values) {
  const int8x16_t even = vld1q_s8(values), odd = vld1q_s8(values + 16);
  int32x4_t sums[kLanes];
  for (int r = 0; r < kLanes; ++r) {
    sums[r] = vdotq_s32(vdotq_s32(vdupq_n_s32(0), low[r], even), high[r], odd);
  }
  return vpaddq_s32(vpaddq_s32(sums[0], sums[1]), vpaddq_s32(sums[2], sums[3]));
}

// `Tokens` rows of activations times `count` <= 4 rows of weights from `row` on.
template <int Tokens>
void gemv(const Int4Matrix& w, const QuantizedRows& x, int64_t row, int64_t count, float* y_TO) {
  int64_t rows[kLanes];
  for (int64_t r = 0; r < kLanes; ++r) rows[r] = row + (r < count ? r : count - 1);
  const int64_t blocks = x.width / kGroupSize;
  float32x4_t sums[Tokens];
  for (int t = 0; t < Tokens; ++t) sums[t] = vdupq_n_f32(0.0f);
  for (int64_t first = 0; first < blocks; first += kLanes) {
    const int64_t some = smaller(kLanes, blocks - first);
    float32x4_t scales[kLanes];
    load_scales(w, rows, first, some, scales);
    for (int64_t b = 0; b < some; ++b) {
      int8x16_t low[kLanes], high[kLanes];
      for (int r = 0; r < kLanes; ++r) {
        const int8x16_t packed = load_16(row_bytes(w, rows[r]) + (first + b) * (kGroupSize / 2));
        low[r] = low_nibbles_16(packed);
        high[r] = high_nibbles_16(packed);
      }
      for (int t = 0; t < Tokens; ++t) {
        const int32x4_t exact =
            block_sums(low, high, x.values + t * x.width + (first + b) * kGroupSize);
        const float32x4_t scale = vmulq_n_f32(scales[b], x.scales[t * x.stride + first + b]);
        sums[t] = vaddq_f32(sums[t], vmulq_f32(float_of_16(exact), scale));
      }
    }
  }
  for (int t = 0; t < Tokens; ++t) store_floats(y_TO + t * w.rows + row, count, sums[t]);
}

}  // namespace

void neon_linear_gemv(const Int4Matrix& w_OI, const QuantizedRows& x_TI, int64_t tokens,
                      int64_t begin, int64_t end, float* y_TO) {
  for (int64_t row = begin; row < end; row += kLanes) {
    const int64_t count = smaller(kLanes, end - row);
    switch (tokens) {
      case 1: gemv<1>(w_OI, x_TI, row, count, y_TO); break;
      case 2: gemv<2>(w_OI, x_TI, row, count, y_TO); break;
      case 3: gemv<3>(w_OI, x_TI, row, count, y_TO); break;
      default: gemv<4>(w_OI, x_TI, row, count, y_TO); break;
    }
  }
}

void neon_dotprod_linear_int8(const Int4Matrix& w_OI, const QuantizedRows& x_TI, int64_t tokens,
                              int64_t begin, int64_t end, float* y_TO) {
  const auto multiply = tokens <= kNeonGemvTokens ? neon_linear_gemv : linear_gemm<DotForm>;
  multiply(w_OI, x_TI, tokens, begin, end, y_TO);
}

}  // namespace mobilemoe
