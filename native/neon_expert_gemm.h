// y = x w for many slots of a routed expert, weights grouped along the output axis: what both
// NEON forms share.
//
// One group of 32 columns and up to 8 blocks of inputs are unpacked once into a tile, in the
// order that the products of the instruction set ask for, and meet four slots at a time.
//
// `Form` has `static void arrange(const int8x16_t rows[32], int8x16_t out[2][32])`, which orders
// one block of packed rows, even outputs and odd outputs, and
// `template <int Slots> static void multiply(const int8x16_t w[32], const int8_t* values,
// int64_t stride, int32x4_t sums[Slots][4])` for either half, whose sums are in their order.
#pragma once

#include "kernel_tiles.h"
#include "neon_blocks.h"
#include "quantize_scale.h"

namespace mobilemoe {
namespace {

constexpr int64_t kExpertStrip = 8;  // blocks of a tile
constexpr int64_t kTileSlots = 4;
constexpr int64_t kPassSlots = 64;  // slots whose sums are held at once

// Weights are 16 times their value.
struct ExpertTile {
  int8x16_t weights[kExpertStrip][2][kGroupSize];
  float32x4_t ratios[kExpertStrip][kGroupSize / kLanes];  // scale / largest scale of the block
  float scales[kExpertStrip];                             // the largest scale
};

// The sums of one slot: even outputs, then odd ones.
struct SlotSums {
  float32x4_t sums[2][4];
};

// Puts them into their natural order.
inline void store_outputs(const SlotSums& slot, float* y) {
  for (int p = 0; p < 4; ++p) {
    const float32x4x2_t both = {{slot.sums[0][p], slot.sums[1][p]}};
    vst2q_f32(y + 8 * p, both);
  }
}

inline void unpack_scales(const Int4Matrix& w, int64_t input, int64_t group, int64_t b,
                          ExpertTile& tile) {
  uint16_t halves[kGroupSize];
  for (int64_t i = 0; i < kGroupSize; ++i) {
    halves[i] = load_u16(row_scales(w, input + i) + 2 * group);
  }
  uint16x8_t largest = vdupq_n_u16(0);
  for (int64_t i = 0; i < kGroupSize; i += 8) {
    largest = vmaxq_u16(largest, vandq_u16(vld1q_u16(halves + i), vdupq_n_u16(0x7FFF)));
  }
  const FoldScale fold = fold_scale(vmaxvq_u16(largest));
  tile.scales[b] = fold.scale;
  for (int64_t i = 0; i < kGroupSize / kLanes; ++i) {
    tile.ratios[b][i] = vmulq_n_f32(floats_of(vld1_u16(halves + kLanes * i)), fold.inverse);
  }
}

template <class Form>
void unpack(const Int4Matrix& w, int64_t input, int64_t group, int64_t count, ExpertTile& tile) {
  for (int64_t b = 0; b < count; ++b, input += kGroupSize) {
    unpack_scales(w, input, group, b, tile);
    int8x16_t rows[kGroupSize];
    for (int64_t i = 0; i < kGroupSize; ++i) {
      rows[i] = load_16(row_bytes(w, input + i) + group * (kGroupSize / 2));
    }
    Form::arrange(rows, tile.weights[b]);
  }
}

// The rows of x that a tile meets, from its first input on.
struct TileInput {
  const float* values[kTileSlots];
  const float* scales[kTileSlots];
};

// Activations with the weights' scales folded in, for the blocks of a tile.
inline void fold(const ExpertTile& tile, const float* x, int64_t count, int8_t* folded) {
  const float32x4_t magic = vdupq_n_f32(kMagic);
  for (int64_t b = 0; b < count; ++b) {
    int32x4_t rounded[kGroupSize / kLanes];
    for (int64_t i = 0; i < kGroupSize / kLanes; ++i) {
      const float32x4_t values = vld1q_f32(x + b * kGroupSize + i * kLanes);
      rounded[i] = vreinterpretq_s32_f32(vfmaq_f32(magic, values, tile.ratios[b][i]));
    }
    vst1q_s8(folded + b * kGroupSize, low_bytes(rounded));
    vst1q_s8(folded + b * kGroupSize + 16, low_bytes(rounded + 4));
  }
}

// sums[s] += tile x[s].
template <class Form, int Slots>
void multiply_tile(const ExpertTile& tile, const TileInput& x, int64_t count, SlotSums* sums_S) {
  constexpr int64_t kStride = kExpertStrip * kGroupSize;
  alignas(16) int8_t folded[Slots * kStride];
  for (int s = 0; s < Slots; ++s) fold(tile, x.values[s], count, folded + s * kStride);
  for (int64_t b = 0; b < count; ++b) {
    for (int n = 0; n < 2; ++n) {
      int32x4_t exact[Slots][4];
      Form::template multiply<Slots>(tile.weights[b][n], folded + b * kGroupSize, kStride, exact);
      for (int s = 0; s < Slots; ++s) {
        const float scale = x.scales[s][b] * tile.scales[b];
        float32x4_t* sums = sums_S[s].sums[n];
        for (int p = 0; p < 4; ++p) {
          sums[p] = vaddq_f32(sums[p], vmulq_n_f32(float_of_16(exact[s][p]), scale));
        }
      }
    }
  }
}

using ExpertTileFunction = void (*)(const ExpertTile&, const TileInput&, int64_t, SlotSums*);
template <class Form>
constexpr ExpertTileFunction kExpertTileFunctions[kTileSlots] = {
    multiply_tile<Form, 1>, multiply_tile<Form, 2>, multiply_tile<Form, 3>,
    multiply_tile<Form, 4>};

// One group of columns for up to kPassSlots slots.
template <class Form>
void gemm_pass(const Int4Matrix& w, const ScaledRows& x, const int32_t* rows, int64_t slots,
               int64_t group, float* y_SO) {
  ExpertTile tile;
  SlotSums sums[kPassSlots];
  for (int64_t s = 0; s < slots; ++s) sums[s] = SlotSums{};
  for (int64_t input = 0; input < w.rows; input += kExpertStrip * kGroupSize) {
    const int64_t block = input / kGroupSize;
    const int64_t count = smaller(kExpertStrip, w.rows / kGroupSize - block);
    unpack<Form>(w, input, group, count, tile);
    for (int64_t first = 0; first < slots; first += kTileSlots) {
      const int64_t some = smaller(kTileSlots, slots - first);
      TileInput tile_input;
      for (int64_t s = 0; s < some; ++s) {
        const int64_t row = rows[first + s];
        tile_input.values[s] = x.values + row * x.width + input;
        tile_input.scales[s] = x.scales + row * (x.width / kGroupSize) + block;
      }
      kExpertTileFunctions<Form>[some - 1](tile, tile_input, count, sums + first);
    }
  }
  for (int64_t s = 0; s < slots; ++s) {
    store_outputs(sums[s], y_SO + s * w.columns + group * kGroupSize);
  }
}

template <class Form>
void expert_gemm(const Int4Matrix& w, const ScaledRows& x, const int32_t* rows, int64_t slots,
                 int64_t begin, int64_t end, float* y_SO) {
  for (int64_t first = 0; first < slots; first += kPassSlots) {
    const int64_t some = smaller(kPassSlots, slots - first);
    for (int64_t group = begin; group < end; ++group) {
      gemm_pass<Form>(w, x, rows + first, some, group, y_SO + first * w.columns);
    }
  }
}

}  // namespace
}  // namespace mobilemoe
