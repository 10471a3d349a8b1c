// y = x w for routed experts, whose weights are grouped along the output axis, AVX-512 VNNI.
//
// The 16 outputs of a register share each activation, four inputs to a lane. What one token
// needs (`gemv`) reads whole rows of w and handles 16 groups at a time; many tokens (`gemm`) share
// weights that are unpacked once into a tile of one group. Both compute the formula of kernels.h
// block after block, and so the same bits.
#include <algorithm>

#include "avx512_blocks.h"
#include "kernels_avx512.h"

namespace mobilemoe {
namespace {

constexpr int64_t kGroups = 16;       // groups of outputs handled at once for one token
constexpr int64_t kQuads = 8;         // groups of four inputs in a block
constexpr int64_t kGemvSlots = 6;     // up to here weights stay in registers
constexpr int64_t kStrip = 8;         // blocks of a tile
constexpr int64_t kTileSlots = 6;
constexpr int64_t kGroupBytes = kGroupSize / 2;

// The rule of fold_scale for 16 groups at once.
struct FoldScales {
  __m512 scales, inverses;
};

inline FoldScales fold_scales(__m256i magnitude_bits) {
  const __mmask16 number = _mm256_cmplt_epu16_mask(magnitude_bits, _mm256_set1_epi16(0x7C00));
  const __mmask16 usable = number & _mm256_test_epi16_mask(magnitude_bits, magnitude_bits);
  const __m512 scales = _mm512_cvtph_ps(magnitude_bits);
  const __m512 nan = _mm512_set1_ps(std::numeric_limits<float>::quiet_NaN());
  return {_mm512_mask_mov_ps(nan, number, scales),
          _mm512_maskz_div_ps(usable, _mm512_set1_ps(1.0f), scales)};
}

// The activations of one block for 16 groups: b[q] has in lane g the four int8 of inputs
// 4q to 4q + 3.
struct FoldedBlock {
  __m512i quads[kQuads];
  __m512i excess;  // -8 * sum of all 32
  __m512 scales;
};

// a, b, c, d: integers in the low byte of every lane.
inline __m512i join_bytes(__m512i a, __m512i b, __m512i c, __m512i d) {
  constexpr int kSelect = 0xCA;  // mask ? x : y
  const __m512i ab = _mm512_ternarylogic_epi32(_mm512_set1_epi32(0xFF), a,
                                               _mm512_slli_epi32(b, 8), kSelect);
  const __m512i cd = _mm512_ternarylogic_epi32(_mm512_set1_epi32(0xFFFFFF),
                                               _mm512_slli_epi32(c, 16),
                                               _mm512_slli_epi32(d, 24), kSelect);
  return _mm512_ternarylogic_epi32(_mm512_set1_epi32(0xFFFF), ab, cd, kSelect);
}

inline FoldedBlock fold_block(const uint8_t* scales, int64_t stride, __mmask16 mask,
                              const float* values, float scale) {
  __m256i halves[kGroupSize];
  __m256i largest = _mm256_setzero_si256();
  for (int64_t i = 0; i < kGroupSize; ++i) {
    halves[i] = _mm256_maskz_loadu_epi16(mask, scales + i * stride);
    const __m256i magnitude = _mm256_and_si256(halves[i], _mm256_set1_epi16(0x7FFF));
    largest = _mm256_max_epu16(largest, magnitude);
  }
  const FoldScales fold = fold_scales(largest);
  FoldedBlock out;
  out.scales = _mm512_mul_ps(_mm512_set1_ps(scale), fold.scales);
  __m512i sums = _mm512_setzero_si512();
  for (int64_t q = 0; q < kQuads; ++q) {
    __m512i b[4];
    for (int64_t i = 0; i < 4; ++i) {
      const __m512 ratio = _mm512_mul_ps(_mm512_cvtph_ps(halves[4 * q + i]), fold.inverses);
      b[i] = _mm512_castps_si512(_mm512_fmadd_ps(_mm512_set1_ps(values[4 * q + i]), ratio,
                                                 _mm512_set1_ps(kMagic)));
    }
    out.quads[q] = join_bytes(b[0], b[1], b[2], b[3]);
    sums = _mm512_dpbusd_epi32(sums, _mm512_set1_epi8(1), out.quads[q]);
  }
  out.excess = _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_slli_epi32(sums, 3));
  return out;
}

// Every 128-bit lane of the results holds four outputs of its own group: register 2p + n has
// the outputs 2 (4p + j) + n, j = 0 to 3.
inline void unpack_quad(const __m512i rows[4], __m512i out[8]) {
  const __m512i low01 = _mm512_unpacklo_epi8(rows[0], rows[1]);
  const __m512i low23 = _mm512_unpacklo_epi8(rows[2], rows[3]);
  const __m512i high01 = _mm512_unpackhi_epi8(rows[0], rows[1]);
  const __m512i high23 = _mm512_unpackhi_epi8(rows[2], rows[3]);
  const __m512i quads[4] = {
      _mm512_unpacklo_epi16(low01, low23), _mm512_unpackhi_epi16(low01, low23),
      _mm512_unpacklo_epi16(high01, high23), _mm512_unpackhi_epi16(high01, high23)};
  for (int p = 0; p < 4; ++p) {
    out[2 * p] = low_nibbles(quads[p]);
    out[2 * p + 1] = high_nibbles(quads[p]);
  }
}

// sums[8] += one block of inputs times four groups of columns; `lanes` picks their activations.
inline void multiply_block(const uint8_t* bytes, int64_t stride, __mmask16 mask, __m512i lanes,
                           const FoldedBlock& b, __m512* sums) {
  const __m512i excess = _mm512_permutexvar_epi32(lanes, b.excess);
  __m512i exact[8];
  for (__m512i& sum : exact) sum = excess;
  for (int64_t q = 0; q < kQuads; ++q) {
    __m512i rows[4], weights[8];
    for (int64_t i = 0; i < 4; ++i) {
      rows[i] = _mm512_maskz_loadu_epi32(mask, bytes + (4 * q + i) * stride);
    }
    unpack_quad(rows, weights);
    const __m512i activations = _mm512_permutexvar_epi32(lanes, b.quads[q]);
    for (int j = 0; j < 8; ++j) exact[j] = _mm512_dpbusd_epi32(exact[j], weights[j], activations);
  }
  const __m512 scales = _mm512_permutexvar_ps(lanes, b.scales);
  for (int j = 0; j < 8; ++j) {
    sums[j] = _mm512_add_ps(sums[j], _mm512_mul_ps(_mm512_cvtepi32_ps(exact[j]), scales));
  }
}

// Puts the outputs of up to four groups into their natural order.
inline void store_groups(const __m512 sums[8], int64_t groups, float* y) {
  for (int p = 0; p < 4; ++p) {
    const __m512 low = _mm512_unpacklo_ps(sums[2 * p], sums[2 * p + 1]);
    const __m512 high = _mm512_unpackhi_ps(sums[2 * p], sums[2 * p + 1]);
    alignas(64) float lanes[2][kLanes];
    _mm512_store_ps(lanes[0], low);
    _mm512_store_ps(lanes[1], high);
    for (int64_t g = 0; g < groups; ++g) {
      _mm_storeu_ps(y + g * kGroupSize + 8 * p, _mm_load_ps(lanes[0] + 4 * g));
      _mm_storeu_ps(y + g * kGroupSize + 8 * p + 4, _mm_load_ps(lanes[1] + 4 * g));
    }
  }
}

inline void prefetch(const uint8_t* at, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) _mm_prefetch(at + i, _MM_HINT_T1);
}

constexpr int64_t kPassGroups = 48;  // groups whose sums are held at once

// One token, up to kPassGroups groups from `begin` on.
void gemv_pass(const Int4Matrix& w, const float* values, const float* scales, int64_t begin,
               int64_t end, float* y) {
  __m512 sums[kPassGroups / 4][8];
  const int64_t sets = (end - begin + 3) / 4;
  for (int64_t set = 0; set < sets; ++set) {
    for (int j = 0; j < 8; ++j) sums[set][j] = _mm512_setzero_ps();
  }
  const int64_t row = w.columns / 2, scale_row = w.columns / kGroupSize * 2;
  for (int64_t input = 0; input < w.rows; input += kGroupSize) {
    // In the order of memory, as if all columns were asked for, which is the common case.
    const uint8_t* next = row_bytes(w, input) + kGroupSize * row;
    const uint8_t* next_scales = row_scales(w, input) + kGroupSize * scale_row;
    const bool ahead = input + kGroupSize < w.rows;
    for (int64_t group = begin; group < end; group += kGroups) {
      const int64_t count = smaller(kGroups, end - group);
      if (ahead) prefetch(next_scales + (group - begin) * 2 * kGroupSize, count * 2 * kGroupSize);
      const FoldedBlock b =
          fold_block(row_scales(w, input) + 2 * group, scale_row, first_lanes(count),
                     values + input, scales[input / kGroupSize]);
      for (int64_t g = 0; g < count; g += 4) {
        const __mmask16 mask = first_lanes(4 * (count - g));
        const __m512i lanes = _mm512_add_epi32(
            _mm512_set1_epi32(static_cast<int>(g)),
            _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3));
        const uint8_t* bytes = row_bytes(w, input) + (group + g) * kGroupBytes;
        if (ahead) prefetch(next + (group + g - begin) * kGroupBytes * kGroupSize, 64 * kGroupSize);
        multiply_block(bytes, row, mask, lanes, b, sums[(group + g - begin) / 4]);
      }
    }
  }
  for (int64_t set = 0; set < sets; ++set) {
    store_groups(sums[set], smaller(4, end - begin - 4 * set),
                 y + (begin + 4 * set) * kGroupSize);
  }
}

void gemv(const Int4Matrix& w, const ScaledRows& x, const int32_t* rows, int64_t slots,
          int64_t begin, int64_t end, float* y_SO) {
  for (int64_t s = 0; s < slots; ++s) {
    const float* values = x.values + rows[s] * x.width;
    const float* scales = x.scales + rows[s] * (x.width / kGroupSize);
    for (int64_t first = begin; first < end; first += kPassGroups) {
      gemv_pass(w, values, scales, first, smaller(end, first + kPassGroups), y_SO + s * w.columns);
    }
  }
}

// One group of columns and up to 8 blocks of inputs, unpacked: even outputs, then odd ones.
struct Tile {
  alignas(64) int8_t weights[kStrip][kQuads][2][64];
  alignas(64) int32_t starts[kStrip][2][kLanes];  // -128 * sum of the weights of an output
  alignas(64) float ratios[kStrip][kGroupSize];   // scale / largest scale of the block
  float scales[kStrip];                           // the largest scale
};

// Eight halves, `stride` bytes apart.
inline __m128i load_column(const uint8_t* at, int64_t stride) {
  const auto half = [&](int64_t i) { return static_cast<int16_t>(load_u16(at + i * stride)); };
  return _mm_setr_epi16(half(0), half(1), half(2), half(3), half(4), half(5), half(6), half(7));
}

void unpack_scales(const Int4Matrix& w, int64_t input, int64_t group, int64_t b, Tile& tile) {
  const int64_t stride = w.columns / kGroupSize * 2;
  const uint8_t* column = row_scales(w, input) + 2 * group;
  const auto sixteen = [&](int64_t first) {
    return _mm256_set_m128i(load_column(column + (first + 8) * stride, stride),
                            load_column(column + first * stride, stride));
  };
  const __m256i halves[2] = {sixteen(0), sixteen(16)};
  const __m256i sign = _mm256_set1_epi16(0x7FFF);
  const __m256i largest = _mm256_max_epu16(_mm256_and_si256(halves[0], sign),
                                           _mm256_and_si256(halves[1], sign));
  const __m128i eight = _mm_max_epu16(_mm256_castsi256_si128(largest),
                                      _mm256_extracti128_si256(largest, 1));
  // The smallest of the complements is what minpos finds.
  const __m128i smallest = _mm_minpos_epu16(_mm_xor_si128(eight, _mm_set1_epi16(-1)));
  const FoldScale fold = fold_scale(static_cast<uint16_t>(~_mm_cvtsi128_si32(smallest)));
  tile.scales[b] = fold.scale;
  for (int64_t half = 0; half < 2; ++half) {
    const __m512 ratio = _mm512_mul_ps(_mm512_cvtph_ps(halves[half]), _mm512_set1_ps(fold.inverse));
    _mm512_store_ps(tile.ratios[b] + kLanes * half, ratio);
  }
}

// Four rows of 16 bytes -> signed weights of the 16 even and the 16 odd outputs, four inputs each.
inline void unpack_rows(const __m128i rows[4], __m512i out[2]) {
  const __m128i low01 = _mm_unpacklo_epi8(rows[0], rows[1]);
  const __m128i low23 = _mm_unpacklo_epi8(rows[2], rows[3]);
  const __m128i high01 = _mm_unpackhi_epi8(rows[0], rows[1]);
  const __m128i high23 = _mm_unpackhi_epi8(rows[2], rows[3]);
  const __m256i low = _mm256_set_m128i(_mm_unpackhi_epi16(low01, low23),
                                       _mm_unpacklo_epi16(low01, low23));
  const __m256i high = _mm256_set_m128i(_mm_unpackhi_epi16(high01, high23),
                                        _mm_unpacklo_epi16(high01, high23));
  const __m512i packed = _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
  const __m512i eight = _mm512_set1_epi8(8);
  out[0] = _mm512_sub_epi8(low_nibbles(packed), eight);
  out[1] = _mm512_sub_epi8(high_nibbles(packed), eight);
}

void unpack(const Int4Matrix& w, int64_t input, int64_t group, int64_t count, Tile& tile) {
  const __m512i ones = _mm512_set1_epi8(1);
  for (int64_t b = 0; b < count; ++b, input += kGroupSize) {
    unpack_scales(w, input, group, b, tile);
    __m512i sums[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
    for (int64_t q = 0; q < kQuads; ++q) {
      __m128i rows[4];
      for (int64_t i = 0; i < 4; ++i) {
        const uint8_t* row = row_bytes(w, input + 4 * q + i) + group * kGroupBytes;
        _mm_prefetch(row + 64, _MM_HINT_T0);  // the columns of a group to come
        rows[i] = load_16(row);
      }
      __m512i weights[2];
      unpack_rows(rows, weights);
      for (int half = 0; half < 2; ++half) {
        _mm512_store_si512(tile.weights[b][q][half], weights[half]);
        sums[half] = _mm512_dpbusd_epi32(sums[half], ones, weights[half]);
      }
    }
    for (int half = 0; half < 2; ++half) {
      const __m512i start =
          _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_slli_epi32(sums[half], 7));
      _mm512_store_si512(tile.starts[b][half], start);
    }
  }
}

// b + 128 of `Slots` rows for the blocks of a tile.
template <int Slots>
inline void fold(const Tile& tile, const float* const x[], int64_t count,
                 uint8_t (*folded)[kStrip * kGroupSize]) {
  const __m512 magic = _mm512_set1_ps(kMagic + 128.0f);
  for (int64_t i = 0; i < count * kGroupSize; i += kLanes) {
    const __m512 ratios = _mm512_load_ps(&tile.ratios[0][0] + i);
    for (int s = 0; s < Slots; ++s) {
      const __m512 rounded = _mm512_fmadd_ps(_mm512_loadu_ps(x[s] + i), ratios, magic);
      _mm_store_si128(reinterpret_cast<__m128i*>(folded[s] + i),
                      _mm512_cvtepi32_epi8(_mm512_castps_si512(rounded)));
    }
  }
}

// The rows of x that a tile meets, from its first input on.
struct TileInput {
  const float* values[kTileSlots];
  const float* scales[kTileSlots];
};

// sums[s] += tile x[s]; sums are the even outputs, then the odd ones.
template <int Slots>
void multiply_tile(const Tile& tile, const TileInput& x, int64_t count,
                   float (*sums_S)[kGroupSize]) {
  alignas(64) uint8_t folded[Slots][kStrip * kGroupSize];
  fold<Slots>(tile, x.values, count, folded);
  __m512 sums[Slots][2];
  for (int s = 0; s < Slots; ++s) {
    for (int h = 0; h < 2; ++h) sums[s][h] = _mm512_load_ps(sums_S[s] + h * kLanes);
  }
  for (int64_t b = 0; b < count; ++b) {
    __m512i exact[Slots][2];
    for (int s = 0; s < Slots; ++s) {
      for (int h = 0; h < 2; ++h) exact[s][h] = _mm512_load_si512(tile.starts[b][h]);
    }
    for (int64_t q = 0; q < kQuads; ++q) {
      const __m512i w0 = _mm512_load_si512(tile.weights[b][q][0]);
      const __m512i w1 = _mm512_load_si512(tile.weights[b][q][1]);
      for (int s = 0; s < Slots; ++s) {
        const __m512i four = broadcast_quad(folded[s] + b * kGroupSize + 4 * q);
        exact[s][0] = _mm512_dpbusd_epi32(exact[s][0], four, w0);
        exact[s][1] = _mm512_dpbusd_epi32(exact[s][1], four, w1);
      }
    }
    for (int s = 0; s < Slots; ++s) {
      const __m512 scale = _mm512_set1_ps(x.scales[s][b] * tile.scales[b]);
      for (int h = 0; h < 2; ++h) {
        const __m512 product = _mm512_mul_ps(_mm512_cvtepi32_ps(exact[s][h]), scale);
        sums[s][h] = _mm512_add_ps(sums[s][h], product);
      }
    }
  }
  for (int s = 0; s < Slots; ++s) {
    for (int h = 0; h < 2; ++h) _mm512_store_ps(sums_S[s] + h * kLanes, sums[s][h]);
  }
}

using TileFunction = void (*)(const Tile&, const TileInput&, int64_t, float (*)[kGroupSize]);
constexpr TileFunction kTileFunctions[kTileSlots] = {multiply_tile<1>, multiply_tile<2>,
                                                     multiply_tile<3>, multiply_tile<4>,
                                                     multiply_tile<5>, multiply_tile<6>};

// Even and odd outputs -> their natural order.
inline void interleave(const float* sums, float* y) {
  const __m512 even = _mm512_load_ps(sums), odd = _mm512_load_ps(sums + kLanes);
  const __m512i first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  const __m512i second = _mm512_add_epi32(first, _mm512_set1_epi32(8));
  _mm512_storeu_ps(y, _mm512_permutex2var_ps(even, first, odd));
  _mm512_storeu_ps(y + kLanes, _mm512_permutex2var_ps(even, second, odd));
}

constexpr int64_t kPassSlots = 60;  // slots whose sums are held at once

void gemm_pass(const Int4Matrix& w, const ScaledRows& x, const int32_t* rows, int64_t slots,
               int64_t group, float* y_SO) {
  Tile tile;
  alignas(64) float sums[kPassSlots][kGroupSize] = {};
  for (int64_t input = 0; input < w.rows; input += kStrip * kGroupSize) {
    const int64_t block = input / kGroupSize;
    const int64_t count = smaller(kStrip, w.rows / kGroupSize - block);
    unpack(w, input, group, count, tile);
    for (int64_t first = 0; first < slots; first += kTileSlots) {
      const int64_t some = smaller(kTileSlots, slots - first);
      TileInput tile_input;
      for (int64_t s = 0; s < some; ++s) {
        const int64_t row = rows[first + s];
        tile_input.values[s] = x.values + row * x.width + input;
        tile_input.scales[s] = x.scales + row * (x.width / kGroupSize) + block;
      }
      kTileFunctions[some - 1](tile, tile_input, count, sums + first);
    }
  }
  for (int64_t s = 0; s < slots; ++s) {
    interleave(sums[s], y_SO + s * w.columns + group * kGroupSize);
  }
}

void gemm(const Int4Matrix& w, const ScaledRows& x, const int32_t* rows, int64_t slots,
          int64_t begin, int64_t end, float* y_SO) {
  for (int64_t first = 0; first < slots; first += kPassSlots) {
    const int64_t some = smaller(kPassSlots, slots - first);
    for (int64_t group = begin; group < end; ++group) {
      gemm_pass(w, x, rows + first, some, group, y_SO + first * w.columns);
    }
  }
}

}  // namespace

void avx512_expert_int8(const Int4Matrix& w_IO, const ScaledRows& x_TI, const int32_t* rows_S,
                        int64_t slots, int64_t begin, int64_t end, float* y_SO) {
  const auto multiply = slots <= kGemvSlots ? gemv : gemm;
  multiply(w_IO, x_TI, rows_S, slots, begin, end, y_SO);
}

}  // namespace mobilemoe
