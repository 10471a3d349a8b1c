// y = x w for routed experts and many tokens, AVX2; the formula stands in kernels.h.
//
// Weights of one group of outputs are unpacked once into a tile, signed, and meet unsigned
// activations (b + 128): an output's sum starts at -128 * sum of its weights. 8 outputs lie in
// the lanes, four inputs to a lane. The same bits as in avx2_expert_gemv.h.
#pragma once

#include "avx2_expert_gemv.h"

namespace mobilemoe {
namespace {

constexpr int64_t kGemvSlots = 5;   // up to here weights stay in registers
constexpr int64_t kPassSlots = 60;  // slots whose sums are held at once
constexpr int64_t kStrip = 8;       // blocks of a tile

// One group of columns and up to 8 blocks of inputs, unpacked. A half has 16 outputs: 8 even
// ones, then 8 odd ones.
struct ExpertTile {
  alignas(32) int8_t weights[kStrip][2][kQuads][2][32];
  alignas(32) int32_t starts[kStrip][2][2][kLanes];  // -128 * sum of the weights of an output
  alignas(32) float ratios[kStrip][kGroupSize];      // scale / largest scale of the block
  float scales[kStrip];                              // the largest scale
};

// The largest of 16 halves whose sign bits are cleared.
inline uint16_t largest_half(__m256i magnitudes) {
  const __m128i both = _mm_max_epu16(_mm256_castsi256_si128(magnitudes),
                                     _mm256_extracti128_si256(magnitudes, 1));
  const __m128i ones = _mm_set1_epi16(-1);
  const __m128i smallest = _mm_minpos_epu16(_mm_xor_si128(both, ones));
  return static_cast<uint16_t>(~_mm_extract_epi16(smallest, 0));
}

void unpack_scales(const Int4Matrix& w, int64_t input, int64_t group, int64_t b,
                   ExpertTile& tile) {
  alignas(32) uint16_t halves[kGroupSize];
  for (int64_t i = 0; i < kGroupSize; ++i) {
    halves[i] = load_u16(row_scales(w, input + i) + 2 * group);
  }
  const __m256i mask = _mm256_set1_epi16(0x7FFF);
  const __m256i low = _mm256_and_si256(load_32(halves), mask);
  const __m256i high = _mm256_and_si256(load_32(halves + 16), mask);
  const FoldScale fold = fold_scale(largest_half(_mm256_max_epu16(low, high)));
  tile.scales[b] = fold.scale;
  for (int64_t i = 0; i < kGroupSize; i += kLanes) {
    const __m256 some = _mm256_cvtph_ps(load_16(halves + i));
    _mm256_store_ps(tile.ratios[b] + i, _mm256_mul_ps(some, _mm256_set1_ps(fold.inverse)));
  }
}

// Four rows of 16 bytes -> signed weights [half][even, odd], four inputs to a lane.
inline void unpack_columns(const __m128i rows[4], __m256i out[2][2]) {
  const __m128i low01 = _mm_unpacklo_epi8(rows[0], rows[1]);
  const __m128i low23 = _mm_unpacklo_epi8(rows[2], rows[3]);
  const __m128i high01 = _mm_unpackhi_epi8(rows[0], rows[1]);
  const __m128i high23 = _mm_unpackhi_epi8(rows[2], rows[3]);
  const __m256i halves[2] = {_mm256_set_m128i(_mm_unpackhi_epi16(low01, low23),
                                              _mm_unpacklo_epi16(low01, low23)),
                             _mm256_set_m128i(_mm_unpackhi_epi16(high01, high23),
                                              _mm_unpacklo_epi16(high01, high23))};
  const __m256i eight = _mm256_set1_epi8(8);
  for (int h = 0; h < 2; ++h) {
    const __m256i packed = offset_nibbles(halves[h]);
    out[h][0] = _mm256_sub_epi8(low_nibbles(packed), eight);
    out[h][1] = _mm256_sub_epi8(high_nibbles(packed), eight);
  }
}

void unpack_group(const Int4Matrix& w, int64_t input, int64_t group, int64_t count,
                  ExpertTile& tile) {
  const __m256i zero = _mm256_setzero_si256(), ones = _mm256_set1_epi8(1);
  for (int64_t b = 0; b < count; ++b, input += kGroupSize) {
    unpack_scales(w, input, group, b, tile);
    __m256i sums[2][2];
    for (auto& half : sums) half[0] = half[1] = begin_sum(zero);
    for (int64_t q = 0; q < kQuads; ++q) {
      __m128i rows[4];
      for (int64_t i = 0; i < 4; ++i) {
        const uint8_t* bytes = row_bytes(w, input + 4 * q + i) + group * kGroupBytes;
        prefetch(bytes + 64, 1);  // what the groups of the next lines will ask for
        rows[i] = load_16(bytes);
      }
      __m256i weights[2][2];
      unpack_columns(rows, weights);
      for (int j = 0; j < 4; ++j) {
        store_32(tile.weights[b][j / 2][q][j % 2], weights[j / 2][j % 2]);
        sums[j / 2][j % 2] = add_quads(sums[j / 2][j % 2], ones, weights[j / 2][j % 2]);
      }
    }
    for (int j = 0; j < 4; ++j) {
      const __m256i sum = finish_sum(sums[j / 2][j % 2], zero);
      store_32(tile.starts[b][j / 2][j % 2], _mm256_sub_epi32(zero, _mm256_slli_epi32(sum, 7)));
    }
  }
}

// The rows of x that a tile meets, from its first input on.
struct ExpertInput {
  const float* values[kPassSlots];
  const float* scales[kPassSlots];
};

// b + 128 of `Slots` rows for the blocks of a tile.
template <int Slots>
inline void fold_slots(const ExpertTile& tile, const float* const x[], int64_t count,
                       uint8_t (*folded)[kStrip * kGroupSize]) {
  const __m256 magic = _mm256_set1_ps(kMagic + 128.0f);
  const __m256i low_byte = _mm256_set1_epi32(0xFF);
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);  // packing goes by half
  for (int64_t i = 0; i < count * kGroupSize; i += kGroupSize) {
    const float* ratios = &tile.ratios[0][0] + i;
    for (int s = 0; s < Slots; ++s) {
      __m256i b[4];
      for (int64_t j = 0; j < 4; ++j) {
        const __m256 rounded = _mm256_fmadd_ps(_mm256_loadu_ps(x[s] + i + j * kLanes),
                                               _mm256_load_ps(ratios + j * kLanes), magic);
        b[j] = _mm256_and_si256(_mm256_castps_si256(rounded), low_byte);
      }
      const __m256i bytes = _mm256_packus_epi16(_mm256_packus_epi32(b[0], b[1]),
                                                _mm256_packus_epi32(b[2], b[3]));
      store_32(folded[s] + i, _mm256_permutevar8x32_epi32(bytes, order));
    }
  }
}

// sums[s] += one block of a half of the tile times x[s].
template <int Slots>
inline void multiply_half(const ExpertTile& tile, int64_t b, int64_t half,
                          const uint8_t (*folded)[kStrip * kGroupSize], const float* const x[],
                          float (*sums_S)[2][2][kLanes]) {
  const __m256i starts[2] = {load_32(tile.starts[b][half][0]), load_32(tile.starts[b][half][1])};
  __m256i exact[Slots][2];
  for (int s = 0; s < Slots; ++s) {
    exact[s][0] = begin_sum(starts[0]);
    exact[s][1] = begin_sum(starts[1]);
  }
  for (int64_t q = 0; q < kQuads; ++q) {
    const __m256i w0 = load_32(tile.weights[b][half][q][0]);
    const __m256i w1 = load_32(tile.weights[b][half][q][1]);
    for (int s = 0; s < Slots; ++s) {
      const __m256i four = broadcast_quad(folded[s] + b * kGroupSize + 4 * q);
      exact[s][0] = add_quads(exact[s][0], four, w0);
      exact[s][1] = add_quads(exact[s][1], four, w1);
    }
  }
  for (int s = 0; s < Slots; ++s) {
    const __m256 scale = _mm256_set1_ps(x[s][b] * tile.scales[b]);
    for (int n = 0; n < 2; ++n) {
      add_scaled(finish_sum(exact[s][n], starts[n]), scale, sums_S[s][half][n]);
    }
  }
}

// sums[s] += tile x[s]
template <int Slots>
void multiply_group(const ExpertTile& tile, const float* const values[],
                    const float* const scales[], int64_t count, float (*sums_S)[2][2][kLanes]) {
  alignas(32) uint8_t folded[Slots][kStrip * kGroupSize];
  fold_slots<Slots>(tile, values, count, folded);
  for (int64_t half = 0; half < 2; ++half) {
    for (int64_t b = 0; b < count; ++b) {
      multiply_half<Slots>(tile, b, half, folded, scales, sums_S);
    }
  }
}

using GroupFunction = void (*)(const ExpertTile&, const float* const[], const float* const[],
                               int64_t, float (*)[2][2][kLanes]);
constexpr GroupFunction kGroupFunctions[] = {multiply_group<1>, multiply_group<2>,
                                             multiply_group<3>, multiply_group<4>,
                                             multiply_group<5>, multiply_group<6>};

// Even and odd outputs -> their natural order.
inline void interleave(const float sums[2][kLanes], float* y) {
  const __m256 even = _mm256_load_ps(sums[0]), odd = _mm256_load_ps(sums[1]);
  const __m256 low = _mm256_unpacklo_ps(even, odd), high = _mm256_unpackhi_ps(even, odd);
  _mm256_storeu_ps(y, _mm256_permute2f128_ps(low, high, 0x20));
  _mm256_storeu_ps(y + kLanes, _mm256_permute2f128_ps(low, high, 0x31));
}

// Up to kPassSlots slots times one group of columns.
void expert_gemm_pass(const Int4Matrix& w, const ScaledRows& x, const int32_t* rows, int64_t slots,
                      int64_t group, float* y_SO) {
  ExpertTile tile;
  ExpertInput at;
  for (int64_t s = 0; s < slots; ++s) {
    at.values[s] = x.values + rows[s] * x.width;
    at.scales[s] = x.scales + rows[s] * (x.width / kGroupSize);
  }
  alignas(32) float sums[kPassSlots][2][2][kLanes] = {};
  for (int64_t input = 0; input < w.rows; input += kStrip * kGroupSize) {
    const int64_t count = smaller(kStrip, (w.rows - input) / kGroupSize);
    unpack_group(w, input, group, count, tile);
    for (int64_t s = 0; s < slots; s += kTileWidth) {
      const int64_t some = smaller(kTileWidth, slots - s);
      kGroupFunctions[some - 1](tile, at.values + s, at.scales + s, count, sums + s);
    }
    for (int64_t s = 0; s < slots; ++s) {
      at.values[s] += count * kGroupSize;
      at.scales[s] += count;
    }
  }
  for (int64_t s = 0; s < slots; ++s) {
    float* y = y_SO + s * w.columns + group * kGroupSize;
    for (int64_t half = 0; half < 2; ++half) interleave(sums[s][half], y + half * 2 * kLanes);
  }
}

void expert_gemm(const Int4Matrix& w, const ScaledRows& x, const int32_t* rows, int64_t slots,
                 int64_t begin, int64_t end, float* y_SO) {
  for (int64_t first = 0; first < slots; first += kPassSlots) {
    const int64_t some = smaller(kPassSlots, slots - first);
    for (int64_t group = begin; group < end; ++group) {
      expert_gemm_pass(w, x, rows + first, some, group, y_SO + first * w.columns);
    }
  }
}

void expert_int8(const Int4Matrix& w_IO, const ScaledRows& x_TI, const int32_t* rows_S,
                 int64_t slots, int64_t begin, int64_t end, float* y_SO) {
  const auto multiply = slots <= kGemvSlots ? expert_gemv : expert_gemm;
  multiply(w_IO, x_TI, rows_S, slots, begin, end, y_SO);
}

}  // namespace
}  // namespace mobilemoe
