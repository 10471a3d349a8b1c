// y = w x for weights grouped along the input axis, AVX-512 VNNI.
//
// 16 rows of w lie in the 16 lanes of a register, four inputs to a lane; an activation is
// broadcast to all of them. A block of 32 inputs gives an exact integer per row, which is scaled
// and added to the row's float sum, block after block: the same order for one token (`Gemv`,
// weights unpacked in registers) and for many (`Gemm`, weights unpacked once into a tile).
//
// Weights are unsigned (value + 8), so a block's sum starts at -8 * sum of the activations.
#include <algorithm>

#include "avx512_blocks.h"
#include "avx512_stream.h"
#include "kernels_avx512.h"

namespace mobilemoe {
namespace {

constexpr int64_t kRows = kLanes;      // rows of w side by side
constexpr int64_t kStrip = 8;          // blocks whose scales are read, or unpacked, at once
constexpr int64_t kQuads = 8;          // groups of four inputs in a block
constexpr int64_t kGemvTokens = 4;     // up to here weights stay in registers
constexpr int64_t kTileTokens = 6;
constexpr int64_t kAhead = 2;          // sets of 16 rows between a prefetch and its use

// The first of 16 consecutive rows. Rows behind the last one read the last one again.
struct RowSet {
  const uint8_t* bytes;
  const uint8_t* scales;
  int64_t row_bytes, row_scales;
  int64_t count;  // rows that exist

  int64_t clamp(int64_t row) const { return row < count ? row : count - 1; }
};

RowSet row_set(const Int4Matrix& w, int64_t row, int64_t end) {
  return {row_bytes(w, row), row_scales(w, row), w.columns / 2, w.columns / kGroupSize * 2,
          smaller(kRows, end - row)};
}

// One block of 16 rows as packed nibbles: x[k] has in lane r the bytes 4k to 4k + 3 of row r.
inline void load_block(const RowSet& rows, int64_t block, __m512i x[4]) {
  const uint8_t* base = rows.bytes + block * (kGroupSize / 2);
  for (int64_t i = 0; i < 4; ++i) {
    const auto at = [&](int64_t j) {
      return load_16(base + rows.clamp(4 * j + i) * rows.row_bytes);
    };
    __m512i four = _mm512_castsi128_si512(at(0));
    four = _mm512_mask_broadcast_i32x4(four, 0x00F0, at(1));
    four = _mm512_mask_broadcast_i32x4(four, 0x0F00, at(2));
    x[i] = _mm512_mask_broadcast_i32x4(four, 0xF000, at(3));
  }
  transpose_dwords(x);
}

inline void transpose_halves(__m256i x[8]) {
  __m256i a[8], b[8];
  for (int i = 0; i < 4; ++i) {
    a[2 * i] = _mm256_unpacklo_epi16(x[2 * i], x[2 * i + 1]);
    a[2 * i + 1] = _mm256_unpackhi_epi16(x[2 * i], x[2 * i + 1]);
  }
  for (int i = 0; i < 2; ++i) {
    b[4 * i] = _mm256_unpacklo_epi32(a[4 * i], a[4 * i + 2]);
    b[4 * i + 1] = _mm256_unpackhi_epi32(a[4 * i], a[4 * i + 2]);
    b[4 * i + 2] = _mm256_unpacklo_epi32(a[4 * i + 1], a[4 * i + 3]);
    b[4 * i + 3] = _mm256_unpackhi_epi32(a[4 * i + 1], a[4 * i + 3]);
  }
  for (int i = 0; i < 4; ++i) {
    x[2 * i] = _mm256_unpacklo_epi64(b[i], b[i + 4]);
    x[2 * i + 1] = _mm256_unpackhi_epi64(b[i], b[i + 4]);
  }
}

// scales[b][r] of `count` <= 8 blocks and 16 rows, as floats.
inline void load_scales(const RowSet& rows, int64_t block, int64_t count, float (*scales)[kRows]) {
  const auto mask = static_cast<__mmask8>((1u << count) - 1u);
  const uint8_t* base = rows.scales + 2 * block;
  __m256i x[8];
  for (int64_t r = 0; r < 8; ++r) {
    const auto at = [&](int64_t row) {
      return _mm_maskz_loadu_epi16(mask, base + rows.clamp(row) * rows.row_scales);
    };
    x[r] = _mm256_set_m128i(at(r + 8), at(r));
  }
  transpose_halves(x);
  for (int64_t b = 0; b < 8; ++b) _mm512_store_ps(scales[b], _mm512_cvtph_ps(x[b]));
}

// Sequential hints far ahead keep more lines of memory under way than the loads themselves can.
inline void prefetch(const uint8_t* at, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) _mm_prefetch(at + i, _MM_HINT_T2);
}

// `Tokens` <= kGemvTokens rows of activations times 16 rows of weights.
template <int Tokens>
void gemv(const RowSet& rows, bool ahead, const QuantizedRows& x, int64_t token, int64_t stride,
          float* y) {
  alignas(64) float scales[kStrip][kRows];
  const int64_t blocks = x.width / kGroupSize;
  const uint8_t* next_bytes = rows.bytes + kAhead * kRows * rows.row_bytes;
  const uint8_t* next_scales = rows.scales + kAhead * kRows * rows.row_scales;
  __m512 sums[Tokens];
  for (int t = 0; t < Tokens; ++t) sums[t] = _mm512_setzero_ps();
  for (int64_t first = 0; first < blocks; first += kStrip) {
    const int64_t count = smaller(kStrip, blocks - first);
    load_scales(rows, first, count, scales);
    if (ahead) prefetch(next_scales + first * 2 * kRows, count * 2 * kRows);
    for (int64_t b = 0; b < count; ++b) {
      const int64_t block = first + b;
      if (ahead) prefetch(next_bytes + block * 16 * kRows, 16 * kRows);
      __m512i w[4];
      load_block(rows, block, w);
      for (int t = 0; t < Tokens; ++t) {
        const int8_t* values = x.values + (token + t) * x.width + block * kGroupSize;
        const int64_t at = (token + t) * x.stride + block;
        __m512i even = _mm512_set1_epi32(-8 * x.sums[at]), odd = _mm512_setzero_si512();
        for (int64_t k = 0; k < 4; ++k) {
          even = _mm512_dpbusd_epi32(even, low_nibbles(w[k]), broadcast_quad(values + 4 * k));
          odd = _mm512_dpbusd_epi32(odd, high_nibbles(w[k]), broadcast_quad(values + 16 + 4 * k));
        }
        const __m512 exact = _mm512_cvtepi32_ps(_mm512_add_epi32(even, odd));
        const __m512 scale =
            _mm512_mul_ps(_mm512_load_ps(scales[b]), _mm512_set1_ps(x.scales[at]));
        sums[t] = _mm512_add_ps(sums[t], _mm512_mul_ps(exact, scale));
      }
    }
  }
  for (int t = 0; t < Tokens; ++t) {
    _mm512_mask_storeu_ps(y + t * stride, first_lanes(rows.count), sums[t]);
  }
}

void gemv_tokens(const Int4Matrix& w, const QuantizedRows& x, int64_t tokens, int64_t begin,
                 int64_t end, float* y_TO) {
  for (int64_t row = begin; row < end; row += kRows) {
    const RowSet rows = row_set(w, row, end);
    float* y = y_TO + row;
    const bool ahead = row + kAhead * kRows < end;
    switch (tokens) {
      case 1: gemv<1>(rows, ahead, x, 0, w.rows, y); break;
      case 2: gemv<2>(rows, ahead, x, 0, w.rows, y); break;
      case 3: gemv<3>(rows, ahead, x, 0, w.rows, y); break;
      default: gemv<4>(rows, ahead, x, 0, w.rows, y); break;
    }
  }
}

void stream_tokens(const Int4Matrix& w, const QuantizedRows& x, int64_t tokens, int64_t begin,
                   int64_t end, float* y_TO) {
  switch (tokens) {
    case 1: stream<1>(w, x, begin, end, y_TO); break;
    case 2: stream<2>(w, x, begin, end, y_TO); break;
    case 3: stream<3>(w, x, begin, end, y_TO); break;
    default: stream<4>(w, x, begin, end, y_TO); break;
  }
}

// A strip of up to 8 blocks and two sets of 16 rows, unpacked.
struct Tile {
  alignas(64) uint8_t weights[kStrip][kQuads][2][4 * kRows];
  alignas(64) float scales[2][kStrip][kRows];
};

void unpack(const RowSet sets[2], int64_t first, int64_t count, Tile& tile) {
  for (int64_t half = 0; half < 2; ++half) {
    load_scales(sets[half], first, count, tile.scales[half]);
    for (int64_t b = 0; b < count; ++b) {
      __m512i w[4];
      load_block(sets[half], first + b, w);
      for (int64_t k = 0; k < 4; ++k) {
        _mm512_store_si512(tile.weights[b][k][half], low_nibbles(w[k]));
        _mm512_store_si512(tile.weights[b][k + 4][half], high_nibbles(w[k]));
      }
    }
  }
}

// y[t] += tile x[t] for `Tokens` tokens; y rows of 32 floats, `stride` apart.
template <int Tokens>
void multiply_tile(const Tile& tile, const QuantizedRows& x, int64_t token, int64_t first,
                   int64_t count, const __mmask16 masks[2], int64_t stride, float* y) {
  __m512 sums[Tokens][2];
  for (int t = 0; t < Tokens; ++t) {
    for (int h = 0; h < 2; ++h) {
      sums[t][h] = first == 0 ? _mm512_setzero_ps()
                              : _mm512_maskz_loadu_ps(masks[h], y + t * stride + h * kRows);
    }
  }
  for (int64_t b = 0; b < count; ++b) {
    const int8_t* values = x.values + token * x.width + (first + b) * kGroupSize;
    const int64_t at = token * x.stride + first + b;
    __m512i exact[Tokens][2];
    for (int t = 0; t < Tokens; ++t) {
      exact[t][0] = exact[t][1] = _mm512_set1_epi32(-8 * x.sums[at + t * x.stride]);
    }
    for (int64_t k = 0; k < kQuads; ++k) {
      const __m512i w0 = _mm512_load_si512(tile.weights[b][k][0]);
      const __m512i w1 = _mm512_load_si512(tile.weights[b][k][1]);
      for (int t = 0; t < Tokens; ++t) {
        const __m512i four = broadcast_quad(values + t * x.width + 4 * k);
        exact[t][0] = _mm512_dpbusd_epi32(exact[t][0], w0, four);
        exact[t][1] = _mm512_dpbusd_epi32(exact[t][1], w1, four);
      }
    }
    for (int t = 0; t < Tokens; ++t) {
      const __m512 scale = _mm512_set1_ps(x.scales[at + t * x.stride]);
      for (int h = 0; h < 2; ++h) {
        const __m512 both = _mm512_mul_ps(_mm512_load_ps(tile.scales[h][b]), scale);
        const __m512 product = _mm512_mul_ps(_mm512_cvtepi32_ps(exact[t][h]), both);
        sums[t][h] = _mm512_add_ps(sums[t][h], product);
      }
    }
  }
  for (int t = 0; t < Tokens; ++t) {
    for (int h = 0; h < 2; ++h) {
      _mm512_mask_storeu_ps(y + t * stride + h * kRows, masks[h], sums[t][h]);
    }
  }
}

using TileFunction = void (*)(const Tile&, const QuantizedRows&, int64_t, int64_t, int64_t,
                              const __mmask16[2], int64_t, float*);
constexpr TileFunction kTileFunctions[kTileTokens] = {multiply_tile<1>, multiply_tile<2>,
                                                      multiply_tile<3>, multiply_tile<4>,
                                                      multiply_tile<5>, multiply_tile<6>};

void gemm_tokens(const Int4Matrix& w, const QuantizedRows& x, int64_t tokens, int64_t begin,
                 int64_t end, float* y_TO) {
  Tile tile;
  const int64_t blocks = x.width / kGroupSize;
  for (int64_t row = begin; row < end; row += 2 * kRows) {
    const bool both = row + kRows < end;
    const RowSet sets[2] = {row_set(w, row, end), row_set(w, both ? row + kRows : row, end)};
    const __mmask16 masks[2] = {first_lanes(sets[0].count),
                                both ? first_lanes(sets[1].count) : __mmask16{0}};
    for (int64_t first = 0; first < blocks; first += kStrip) {
      const int64_t count = smaller(kStrip, blocks - first);
      unpack(sets, first, count, tile);
      for (int64_t t = 0; t < tokens; t += kTileTokens) {
        const int64_t some = smaller(kTileTokens, tokens - t);
        kTileFunctions[some - 1](tile, x, t, first, count, masks, w.rows, y_TO + t * w.rows + row);
      }
    }
  }
}

}  // namespace

void avx512_linear_int8(const Int4Matrix& w_OI, const QuantizedRows& x_TI, int64_t tokens,
                        int64_t begin, int64_t end, float* y_TO) {
  if (tokens > kGemvTokens) {
    gemm_tokens(w_OI, x_TI, tokens, begin, end, y_TO);
    return;
  }
  if (can_stream(x_TI.width / kGroupSize)) {
    const int64_t whole = begin + (end - begin) / kRows * kRows;
    stream_tokens(w_OI, x_TI, tokens, begin, whole, y_TO);
    begin = whole;
  }
  gemv_tokens(w_OI, x_TI, tokens, begin, end, y_TO);
}

}  // namespace mobilemoe
