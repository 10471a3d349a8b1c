// y = w x for int8 activations and weights grouped along the input axis, AVX2.
//
// 8 rows of w lie in the 8 lanes of a register, four inputs to a lane; an activation is
// broadcast to all of them. A block of 32 inputs gives an exact integer per row, which is scaled
// and added to the row's float sum, block after block: the same order for few tokens
// (`linear_gemv`, weights unpacked in registers) and for many (`linear_gemm`, weights unpacked
// once into a tile).
//
// Weights are unsigned (value + 8), so a block's sum starts at -8 * sum of the activations.
#pragma once

#include "avx2_blocks.h"
#include "avx2_dot.h"
#include "kernel_tiles.h"

namespace mobilemoe {
namespace {

constexpr int64_t kRows = kLanes;    // rows of w side by side
constexpr int64_t kGemvTokens = 4;   // up to here weights stay in registers
constexpr int64_t kPassTokens = 60;  // tokens whose sums are held at once
constexpr int64_t kRowsAhead = 4;    // sets of 8 rows between a prefetch and its use

// 8 rows from `row` on, or the lone row `row` 8 times over.
struct RowSet {
  const uint8_t* bytes;
  const uint8_t* scales;
  int64_t row_bytes, row_scales;  // 0 for a lone row
  int64_t row, count;
};

// Sets overlap where `end` would cut one: a row computed twice has the same bits. Fewer than 8
// rows come one by one.
inline int64_t row_step(int64_t begin, int64_t end) { return end - begin < kRows ? 1 : kRows; }

inline RowSet row_set(const Int4Matrix& w, int64_t row, int64_t begin, int64_t end) {
  const int64_t step = row_step(begin, end), first = smaller(row, end - step);
  const bool lone = step == 1;
  return {row_bytes(w, first), row_scales(w, first), lone ? 0 : w.columns / 2,
          lone ? 0 : w.columns / kGroupSize * 2, first, step};
}

// One block of 8 rows as packed nibbles of value + 8: x[k] has in lane r the bytes 4k to 4k + 3
// of row r.
inline void load_rows(const RowSet& rows, int64_t block, __m256i x[4]) {
  const uint8_t* base = rows.bytes + block * (kGroupSize / 2);
  for (int64_t i = 0; i < 4; ++i) {
    x[i] = _mm256_set_m128i(load_16(base + (i + 4) * rows.row_bytes),
                            load_16(base + i * rows.row_bytes));
  }
  transpose_dwords(x);
  for (int64_t i = 0; i < 4; ++i) x[i] = offset_nibbles(x[i]);
}

// scales[b][r] of `count` <= 8 blocks and 8 rows, as floats.
inline void load_row_scales(const RowSet& rows, int64_t block, int64_t count,
                            float (*scales)[kRows]) {
  const HalfMask mask = half_mask(count);
  __m128i x[8];
  for (int64_t r = 0; r < kRows; ++r) {
    x[r] = load_halves(rows.scales + r * rows.row_scales + 2 * block, mask);
  }
  transpose_halves(x);
  for (int64_t b = 0; b < 8; ++b) _mm256_store_ps(scales[b], _mm256_cvtph_ps(x[b]));
}

// sums[t] += one block, for the rows of w in the lanes.
template <int Tokens>
inline void add_block(const __m256i w[4], const float scales[kRows], const QuantizedRows& x,
                      int64_t block, __m256 sums[Tokens]) {
  for (int t = 0; t < Tokens; ++t) {
    const int8_t* values = x.values + t * x.width + block * kGroupSize;
    const int64_t at = t * x.stride + block;
    const __m256i start = _mm256_set1_epi32(-8 * x.sums[at]);
    __m256i even = begin_sum(start), odd = begin_sum(_mm256_setzero_si256());
    for (int64_t k = 0; k < 4; ++k) {
      even = add_quads(even, low_nibbles(w[k]), broadcast_quad(values + 4 * k));
      odd = add_quads(odd, high_nibbles(w[k]), broadcast_quad(values + 16 + 4 * k));
    }
    const __m256 exact = _mm256_cvtepi32_ps(finish_sum(join_sums(even, odd), start));
    const __m256 scale = _mm256_mul_ps(_mm256_load_ps(scales), _mm256_set1_ps(x.scales[at]));
    sums[t] = _mm256_add_ps(sums[t], _mm256_mul_ps(exact, scale));
  }
}

inline void store_rows(__m256 sums, const RowSet& rows, float* y) {
  if (rows.count == kRows) {
    _mm256_storeu_ps(y + rows.row, sums);
  } else {
    y[rows.row] = _mm256_cvtss_f32(sums);
  }
}

// `Tokens` <= kGemvTokens rows of activations times 8 rows of weights; `ahead`: whether there are
// rows to ask the memory for.
template <int Tokens>
void linear_gemv(const RowSet& rows, bool ahead, const QuantizedRows& x, int64_t stride,
                 float* y) {
  alignas(32) float scales[kScalePadding][kRows];
  const int64_t blocks = x.width / kGroupSize;
  const uint8_t* next = rows.bytes + kRowsAhead * kRows * rows.row_bytes;
  const uint8_t* next_scales = rows.scales + kRowsAhead * kRows * rows.row_scales;
  __m256 sums[Tokens];
  for (int t = 0; t < Tokens; ++t) sums[t] = _mm256_setzero_ps();
  for (int64_t first = 0; first < blocks; first += kScalePadding) {
    const int64_t count = smaller(kScalePadding, blocks - first);
    load_row_scales(rows, first, count, scales);
    if (ahead) prefetch(next_scales + first * 2 * kRows, count * 2 * kRows);
    for (int64_t b = 0; b < count; ++b) {
      const int64_t block = first + b;
      if (ahead) prefetch(next + block * 16 * kRows, 16 * kRows);
      __m256i w[4];
      load_rows(rows, block, w);
      add_block<Tokens>(w, scales[b], x, block, sums);
    }
  }
  for (int t = 0; t < Tokens; ++t) store_rows(sums[t], rows, y + t * stride);
}

void linear_gemv_rows(const Int4Matrix& w, const QuantizedRows& x, int64_t tokens, int64_t begin,
                      int64_t end, float* y) {
  for (int64_t row = begin; row < end; row += row_step(begin, end)) {
    const RowSet rows = row_set(w, row, begin, end);
    const bool ahead = row + kRowsAhead * kRows < end;
    switch (tokens) {
      case 1: linear_gemv<1>(rows, ahead, x, w.rows, y); break;
      case 2: linear_gemv<2>(rows, ahead, x, w.rows, y); break;
      case 3: linear_gemv<3>(rows, ahead, x, w.rows, y); break;
      default: linear_gemv<4>(rows, ahead, x, w.rows, y); break;
    }
  }
}

// A strip of up to 8 blocks and two sets of 8 rows, unpacked.
struct LinearTile {
  alignas(32) uint8_t weights[kScalePadding][kQuads][2][4 * kRows];
  alignas(32) float scales[2][kScalePadding][kRows];
};

void unpack_rows(const RowSet sets[2], int64_t first, int64_t count, LinearTile& tile) {
  for (int64_t half = 0; half < 2; ++half) {
    load_row_scales(sets[half], first, count, tile.scales[half]);
    for (int64_t b = 0; b < count; ++b) {
      __m256i w[4];
      load_rows(sets[half], first + b, w);
      for (int64_t k = 0; k < 4; ++k) {
        store_32(tile.weights[b][k][half], low_nibbles(w[k]));
        store_32(tile.weights[b][k + 4][half], high_nibbles(w[k]));
      }
    }
  }
}

// The activations that a tile meets: one strip of up to kPassTokens tokens.
struct LinearInput {
  const int8_t* values;
  const float* scales;
  const int32_t* sums;
  int64_t width, stride;
};

// sums[t] += tile x[t]
template <int Tokens>
void multiply_rows(const LinearTile& tile, const LinearInput& x, int64_t count,
                   float (*sums_T)[2][kRows]) {
  for (int64_t b = 0; b < count; ++b) {
    __m256i exact[Tokens][2];
    for (int t = 0; t < Tokens; ++t) {
      const __m256i start = _mm256_set1_epi32(-8 * x.sums[t * x.stride + b]);
      exact[t][0] = exact[t][1] = begin_sum(start);
    }
    for (int64_t k = 0; k < kQuads; ++k) {
      const __m256i w0 = load_32(tile.weights[b][k][0]), w1 = load_32(tile.weights[b][k][1]);
      for (int t = 0; t < Tokens; ++t) {
        const __m256i four = broadcast_quad(x.values + t * x.width + b * kGroupSize + 4 * k);
        exact[t][0] = add_quads(exact[t][0], w0, four);
        exact[t][1] = add_quads(exact[t][1], w1, four);
      }
    }
    for (int t = 0; t < Tokens; ++t) {
      const int64_t at = t * x.stride + b;
      const __m256i start = _mm256_set1_epi32(-8 * x.sums[at]);
      const __m256 scale = _mm256_set1_ps(x.scales[at]);
      for (int h = 0; h < 2; ++h) {
        const __m256 both = _mm256_mul_ps(_mm256_load_ps(tile.scales[h][b]), scale);
        add_scaled(finish_sum(exact[t][h], start), both, sums_T[t][h]);
      }
    }
  }
}

using RowsFunction = void (*)(const LinearTile&, const LinearInput&, int64_t, float (*)[2][kRows]);
constexpr RowsFunction kRowsFunctions[] = {multiply_rows<1>, multiply_rows<2>, multiply_rows<3>,
                                           multiply_rows<4>, multiply_rows<5>, multiply_rows<6>};


// Up to kPassTokens tokens from `token` on, times two sets of rows.
void linear_gemm_pass(const RowSet sets[2], const QuantizedRows& x, int64_t token, int64_t tokens,
                      int64_t stride, float* y) {
  LinearTile tile;
  alignas(32) float sums[kPassTokens][2][kRows] = {};
  const int64_t blocks = x.width / kGroupSize;
  for (int64_t first = 0; first < blocks; first += kScalePadding) {
    const int64_t count = smaller(kScalePadding, blocks - first);
    unpack_rows(sets, first, count, tile);
    for (int64_t t = 0; t < tokens; t += kTileWidth) {
      const int64_t at = (token + t) * x.stride + first;
      const LinearInput input = {x.values + (token + t) * x.width + first * kGroupSize,
                                 x.scales + at, x.sums + at, x.width, x.stride};
      kRowsFunctions[smaller(kTileWidth, tokens - t) - 1](tile, input, count, sums + t);
    }
  }
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t h = 0; h < 2; ++h) {
      store_rows(_mm256_load_ps(sums[t][h]), sets[h], y + (token + t) * stride);
    }
  }
}

void linear_gemm_rows(const Int4Matrix& w, const QuantizedRows& x, int64_t tokens, int64_t begin,
                      int64_t end, float* y) {
  const int64_t step = row_step(begin, end), last = end - 2 * step;
  for (int64_t row = begin; row < end; row += 2 * step) {
    const int64_t first = last > begin ? smaller(row, last) : begin;
    const RowSet sets[2] = {row_set(w, first, begin, end), row_set(w, first + step, begin, end)};
    for (int64_t token = 0; token < tokens; token += kPassTokens) {
      linear_gemm_pass(sets, x, token, smaller(kPassTokens, tokens - token), w.rows, y);
    }
  }
}

void linear_int8(const Int4Matrix& w_OI, const QuantizedRows& x_TI, int64_t tokens, int64_t begin,
                 int64_t end, float* y_TO) {
  const auto multiply = tokens <= kGemvTokens ? linear_gemv_rows : linear_gemm_rows;
  multiply(w_OI, x_TI, tokens, begin, end, y_TO);
}

}  // namespace
}  // namespace mobilemoe
