// The products of many tokens, NEON with matrix products of int8: 2 by 8 times 8 by 2.
#include "kernels_neon.h"
#include "neon_expert_gemm.h"
#include "neon_linear_gemm.h"

namespace mobilemoe {
namespace {

// Rows of activations in pairs, eight inputs each; the last of an odd number is its own partner.
template <int Rows>
struct Pairs {
  static constexpr int kCount = (Rows + 1) / 2;

  int8x16_t eights[kCount][2];

  // 16 inputs of every row.
  Pairs(const int8_t* values, int64_t stride) {
    for (int p = 0; p < kCount; ++p) {
      const int8x16_t first = vld1q_s8(values + 2 * p * stride);
      const int8x16_t second = 2 * p + 1 < Rows ? vld1q_s8(values + (2 * p + 1) * stride) : first;
      eights[p][0] = zip_low_8(first, second);
      eights[p][1] = zip_high_8(first, second);
    }
  }
};

// The sums of four outputs for the two rows of a pair, from two matrix products.
template <int Rows, int Registers>
inline void split_pair(int pair, int at, int32x4_t a, int32x4_t b,
                       int32x4_t (*sums)[Registers]) {
  sums[2 * pair][at] = join_low(a, b);
  if (2 * pair + 1 < Rows) sums[2 * pair + 1][at] = join_high(a, b);
}

// Eight rows of w as four pairs, eight inputs each.
struct MatrixLinear {
  // out[2 p + e][half]: rows 2p and 2p + 1, inputs 8e to 8e + 7 of the even or odd ones.
  static void arrange(const int8x16_t halves[kRows][2], int8x16_t out[kRows][2]) {
    for (int half = 0; half < 2; ++half) {
      for (int p = 0; p < 4; ++p) {
        out[2 * p][half] = zip_low_8(halves[2 * p][half], halves[2 * p + 1][half]);
        out[2 * p + 1][half] = zip_high_8(halves[2 * p][half], halves[2 * p + 1][half]);
      }
    }
  }

  template <int Tokens>
  static void multiply(const int8x16_t w[kRows][2], const int8_t* values, int64_t width,
                       int32x4_t sums[Tokens][2]) {
    using TokenPairs = Pairs<Tokens>;
    int32x4_t products[TokenPairs::kCount][4];
    for (auto& row : products) {
      for (int32x4_t& product : row) product = vdupq_n_s32(0);
    }
    for (int half = 0; half < 2; ++half) {
      const TokenPairs x(values + 16 * half, width);
      for (int e = 0; e < 2; ++e) {
        for (int p = 0; p < 4; ++p) {
          for (int t = 0; t < TokenPairs::kCount; ++t) {
            products[t][p] = vmmlaq_s32(products[t][p], x.eights[t][e], w[2 * p + e][half]);
          }
        }
      }
    }
    for (int t = 0; t < TokenPairs::kCount; ++t) {
      for (int h = 0; h < 2; ++h) {
        split_pair<Tokens>(t, h, products[t][2 * h], products[t][2 * h + 1], sums);
      }
    }
  }
};

// 16 outputs as eight pairs, eight inputs each.
struct MatrixExpert {
  // out[n][8 e + j]: outputs 4j + n and 4j + 2 + n, inputs 8e to 8e + 7.
  static void arrange(const int8x16_t rows[kGroupSize], int8x16_t out[2][kGroupSize]) {
    for (int e = 0; e < 4; ++e) {
      int8x16_t first[4], second[4];
      interleave(rows + 8 * e, first);
      interleave(rows + 8 * e + 4, second);
      for (int p = 0; p < 4; ++p) {
        const int8x16_t pairs[2] = {zip_low_4(first[p], second[p]),
                                    zip_high_4(first[p], second[p])};
        for (int i = 0; i < 2; ++i) {
          out[0][8 * e + 2 * p + i] = low_nibbles_16(pairs[i]);
          out[1][8 * e + 2 * p + i] = high_nibbles_16(pairs[i]);
        }
      }
    }
  }

  template <int Slots>
  static void multiply(const int8x16_t w[kGroupSize], const int8_t* values, int64_t stride,
                       int32x4_t sums[Slots][4]) {
    using SlotPairs = Pairs<Slots>;
    int32x4_t products[SlotPairs::kCount][8];
    for (auto& row : products) {
      for (int32x4_t& product : row) product = vdupq_n_s32(0);
    }
    for (int half = 0; half < 2; ++half) {
      const SlotPairs x(values + 16 * half, stride);
      for (int e = 0; e < 2; ++e) {
        for (int j = 0; j < 8; ++j) {
          const int8x16_t weights = w[16 * half + 8 * e + j];
          for (int s = 0; s < SlotPairs::kCount; ++s) {
            products[s][j] = vmmlaq_s32(products[s][j], x.eights[s][e], weights);
          }
        }
      }
    }
    for (int s = 0; s < SlotPairs::kCount; ++s) {
      for (int p = 0; p < 4; ++p) {
        split_pair<Slots>(s, p, products[s][2 * p], products[s][2 * p + 1], sums);
      }
    }
  }
};

}  // namespace

void neon_i8mm_linear_int8(const Int4Matrix& w_OI, const QuantizedRows& x_TI, int64_t tokens,
                           int64_t begin, int64_t end, float* y_TO) {
  const auto multiply = tokens <= kNeonGemvTokens ? neon_linear_gemv : linear_gemm<MatrixLinear>;
  multiply(w_OI, x_TI, tokens, begin, end, y_TO);
}

void neon_i8mm_expert_int8(const Int4Matrix& w_IO, const ScaledRows& x_TI, const int32_t* rows_S,
                           int64_t slots, int64_t begin, int64_t end, float* y_SO) {
  const auto multiply = slots <= kNeonGemvSlots ? neon_expert_gemv : expert_gemm<MatrixExpert>;
  multiply(w_IO, x_TI, rows_S, slots, begin, end, y_SO);
}

}  // namespace mobilemoe
