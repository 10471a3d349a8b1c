// y = w x for many tokens and weights grouped along the input axis: what both NEON forms share.
//
// Eight rows of w and up to 8 blocks of inputs are unpacked once into a tile, in the order that
// the products of the instruction set ask for, and meet four tokens at a time. A block of 32
// inputs gives an exact integer per row, which is scaled and added to the row's float sum, block
// after block: the order of kernels.h.
//
// `Form` has `static void arrange(const int8x16_t halves[kRows][2], int8x16_t out[kRows][2])`,
// which orders one block, [row][even inputs, odd inputs], and
// `template <int Tokens> static void multiply(const int8x16_t w[kRows][2], const int8_t* values,
// int64_t width, int32x4_t sums[Tokens][2])`, whose sums have a token's eight rows in order.
#pragma once

#include "kernel_tiles.h"
#include "neon_blocks.h"

namespace mobilemoe {
namespace {

constexpr int64_t kRows = 8;   // rows of w side by side
constexpr int64_t kStrip = 8;  // blocks of a tile
constexpr int64_t kTileTokens = 4;

// Weights are 16 times their value.
struct LinearTile {
  int8x16_t weights[kStrip][kRows][2];
  float32x4_t scales[kStrip][2];
  int64_t rows;  // that exist; the last one is repeated
};

template <class Form>
void unpack(const Int4Matrix& w, int64_t row, int64_t block, int64_t count, LinearTile& tile) {
  const auto clamp = [&](int64_t r) { return row + (r < tile.rows ? r : tile.rows - 1); };
  for (int64_t b = 0; b < count; ++b) {
    int8x16_t halves[kRows][2];
    for (int64_t r = 0; r < kRows; ++r) {
      const int8x16_t packed = load_16(row_bytes(w, clamp(r)) + (block + b) * (kGroupSize / 2));
      halves[r][0] = low_nibbles_16(packed);
      halves[r][1] = high_nibbles_16(packed);
    }
    Form::arrange(halves, tile.weights[b]);
  }
  for (int64_t half = 0; half < 2; ++half) {
    for (int64_t first = 0; first < count; first += kLanes) {
      float32x4_t scales[kLanes];
      for (int64_t r = 0; r < kLanes; ++r) {
        const uint8_t* halves = row_scales(w, clamp(kLanes * half + r)) + 2 * (block + first);
        scales[r] = floats_of(load_halves(halves, count - first));
      }
      transpose(scales);
      for (int64_t b = 0; b < kLanes; ++b) tile.scales[first + b][half] = scales[b];
    }
  }
}

// y[t] += tile x[t] for `Tokens` tokens; y rows lie `stride` apart.
template <class Form, int Tokens>
void multiply_tile(const LinearTile& tile, const QuantizedRows& x, int64_t token, int64_t first,
                   int64_t count, int64_t stride, float* y) {
  float32x4_t sums[Tokens][2];
  for (int t = 0; t < Tokens; ++t) {
    for (int h = 0; h < 2; ++h) {
      sums[t][h] = first == 0 ? vdupq_n_f32(0.0f)
                              : load_floats(y + t * stride + h * kLanes, tile.rows - h * kLanes);
    }
  }
  for (int64_t b = 0; b < count; ++b) {
    const int8_t* values = x.values + token * x.width + (first + b) * kGroupSize;
    const float* scales = x.scales + token * x.stride + first + b;
    int32x4_t exact[Tokens][2];
    Form::template multiply<Tokens>(tile.weights[b], values, x.width, exact);
    for (int t = 0; t < Tokens; ++t) {
      for (int h = 0; h < 2; ++h) {
        const float32x4_t scale = vmulq_n_f32(tile.scales[b][h], scales[t * x.stride]);
        sums[t][h] = vaddq_f32(sums[t][h], vmulq_f32(float_of_16(exact[t][h]), scale));
      }
    }
  }
  for (int t = 0; t < Tokens; ++t) {
    for (int h = 0; h < 2; ++h) {
      store_floats(y + t * stride + h * kLanes, tile.rows - h * kLanes, sums[t][h]);
    }
  }
}

using TileFunction = void (*)(const LinearTile&, const QuantizedRows&, int64_t, int64_t, int64_t,
                              int64_t, float*);
template <class Form>
constexpr TileFunction kTileFunctions[kTileTokens] = {
    multiply_tile<Form, 1>, multiply_tile<Form, 2>, multiply_tile<Form, 3>,
    multiply_tile<Form, 4>};

template <class Form>
void linear_gemm(const Int4Matrix& w, const QuantizedRows& x, int64_t tokens, int64_t begin,
                 int64_t end, float* y_TO) {
  LinearTile tile;
  const int64_t blocks = x.width / kGroupSize;
  for (int64_t row = begin; row < end; row += kRows) {
    tile.rows = smaller(kRows, end - row);
    for (int64_t first = 0; first < blocks; first += kStrip) {
      const int64_t count = smaller(kStrip, blocks - first);
      unpack<Form>(w, row, first, count, tile);
      for (int64_t t = 0; t < tokens; t += kTileTokens) {
        const auto multiply = kTileFunctions<Form>[smaller(kTileTokens, tokens - t) - 1];
        multiply(tile, x, t, first, count, w.rows, y_TO + t * w.rows + row);
      }
    }
  }
}

}  // namespace
}  // namespace mobilemoe
