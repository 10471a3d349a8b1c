// Loop structure shared by the kernels of every instruction set.
//
// Weights are unpacked once, into a small tile on the stack, and used for all tokens of the
// call; a token's own additions always happen in the same order, whatever shares its tile.
// The functions live in an unnamed namespace on purpose: each kernel file gets its own copy,
// compiled for its own instruction set.
#pragma once

#include "kernels.h"

namespace mobilemoe {
namespace {

constexpr int64_t kTokenTile = 64;                // tokens with an accumulator on the stack
constexpr int64_t kStripBlocks = kScalePadding;   // blocks of 32 inputs unpacked at a time
constexpr int64_t kGroupBatch = 8;                // expert groups whose scales are read at once

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// `Ops` has `Matrix`, `Input`, `Accumulator`, `Strip`, and the static functions
//   unpack(w, row, first_block, blocks, strip)
//   accumulate(strip, input, token, first_block, blocks, accumulator)
//   finish(accumulator) -> float
template <class Ops>
void linear_tokens(const typename Ops::Matrix& w_OI, const typename Ops::Input& x_TI,
                   int64_t first, int64_t last, int64_t row, float* y_TO) {
  typename Ops::Accumulator accumulators[kTokenTile];
  typename Ops::Strip strip;
  for (int64_t t = first; t < last; ++t) accumulators[t - first] = typename Ops::Accumulator{};
  const int64_t blocks = w_OI.columns / kGroupSize;
  for (int64_t block = 0; block < blocks; block += kStripBlocks) {
    const int64_t count = smaller(kStripBlocks, blocks - block);
    Ops::unpack(w_OI, row, block, count, strip);
    for (int64_t t = first; t < last; ++t) {
      Ops::accumulate(strip, x_TI, t, block, count, accumulators[t - first]);
    }
  }
  for (int64_t t = first; t < last; ++t) {
    y_TO[t * w_OI.rows + row] = Ops::finish(accumulators[t - first]);
  }
}

template <class Ops>
void linear_rows(const typename Ops::Matrix& w_OI, const typename Ops::Input& x_TI,
                 int64_t tokens, int64_t begin, int64_t end, float* y_TO) {
  for (int64_t first = 0; first < tokens; first += kTokenTile) {
    const int64_t last = smaller(tokens, first + kTokenTile);
    for (int64_t row = begin; row < end; ++row) {
      linear_tokens<Ops>(w_OI, x_TI, first, last, row, y_TO);
    }
  }
}

// `Ops` has `Matrix`, `Tile` (32 inputs by 32 outputs) and the static functions
//   scales(w, first_input, first_group, groups, scales[kGroupBatch][32])
//   unpack(w, first_input, group, tile)
//   accumulate(tile, scales[32], x[32], y[32])   adds; y may be in an order of its own
//   finish(y[32])                                restores the natural order
template <class Ops>
void expert_block(const typename Ops::Matrix& w_IO, const float* const* x_S, int64_t slots,
                  int64_t input, int64_t group, int64_t groups, float* y_SO) {
  alignas(64) float scales[kGroupBatch][kGroupSize];
  alignas(64) typename Ops::Tile tile;
  Ops::scales(w_IO, input, group, groups, scales);
  for (int64_t g = 0; g < groups; ++g) {
    Ops::unpack(w_IO, input, group + g, tile);
    for (int64_t s = 0; s < slots; ++s) {
      float* y = y_SO + s * w_IO.columns + (group + g) * kGroupSize;
      Ops::accumulate(tile, scales[g], x_S[s] + input, y);
    }
  }
}

// The `scales` of a format whose weights carry their own: x * 1 is x, so one `accumulate` serves
// both formats.
inline void unit_scales(const Bf16Matrix&, int64_t, int64_t, int64_t groups,
                        float (*scales)[kGroupSize]) {
  for (int64_t g = 0; g < groups; ++g) {
    for (int64_t i = 0; i < kGroupSize; ++i) scales[g][i] = 1.0f;
  }
}

template <class Ops>
void expert_groups(const typename Ops::Matrix& w_IO, const float* const* x_S, int64_t slots,
                   int64_t begin, int64_t end, float* y_SO) {
  for (int64_t s = 0; s < slots; ++s) {
    float* y_O = y_SO + s * w_IO.columns;
    for (int64_t o = begin * kGroupSize; o < end * kGroupSize; ++o) y_O[o] = 0.0f;
  }
  for (int64_t input = 0; input < w_IO.rows; input += kGroupSize) {
    for (int64_t group = begin; group < end; group += kGroupBatch) {
      const int64_t count = smaller(kGroupBatch, end - group);
      expert_block<Ops>(w_IO, x_S, slots, input, group, count, y_SO);
    }
  }
  for (int64_t s = 0; s < slots; ++s) {
    float* y_O = y_SO + s * w_IO.columns;
    for (int64_t group = begin; group < end; ++group) Ops::finish(y_O + group * kGroupSize);
  }
}

}  // namespace
}  // namespace mobilemoe
