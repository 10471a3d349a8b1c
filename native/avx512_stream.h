// y = w x for a few tokens, reading w as one stream from its first byte to its last, AVX-512 VNNI.
// Include from kernels_avx512_linear.cc only.
//
// The hardware fetches memory ahead best when it is read strictly in order. So 16 rows are taken
// as 16 B consecutive blocks (B blocks to a row), 16 at a time: a register has one block to a
// lane, and the activations of the block that belongs there. What comes out, the scaled product
// of every block, is added up row by row in the order of the other kernels, so the bits are theirs.
#pragma once

#include <numeric>

#include "avx512_blocks.h"
#include "kernels.h"

namespace mobilemoe {
namespace {

constexpr int64_t kStreamBlocks = 128;  // the longest row
constexpr int64_t kStreamPeriod = 8;    // after so many registers a row begins in lane 0 again
constexpr int64_t kStreamAhead = 8192;  // bytes between a hint and its use; the best of several

inline int64_t stream_period(int64_t blocks) { return blocks / std::gcd(blocks, kLanes); }

inline bool can_stream(int64_t blocks) {
  return blocks % 8 == 0 && blocks <= kStreamBlocks && stream_period(blocks) <= kStreamPeriod;
}

// The activations of one token as registers of the stream meet them.
struct StreamInput {
  // [register of the period][dword of the block][lane]; lanes in the order of transpose_dwords.
  alignas(64) int32_t quads[kStreamPeriod][8][kLanes];
  alignas(64) int32_t starts[kStreamPeriod][kLanes];  // -8 * sum of the block; the same order
  alignas(64) float scales[kStreamPeriod][kLanes];    // in the natural order
};

// The block that transpose_dwords puts into a lane, and the other way round.
inline int64_t block_of_lane(int64_t lane) { return 4 * (lane % 4) + lane / 4; }

inline void lay_out(const QuantizedRows& x, int64_t token, StreamInput& input) {
  const int64_t blocks = x.width / kGroupSize;
  for (int64_t at = 0; at < stream_period(blocks); ++at) {
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      const int64_t block = (at * kLanes + block_of_lane(lane)) % blocks;
      const int8_t* values = x.values + token * x.width + block * kGroupSize;
      for (int64_t k = 0; k < 8; ++k) {
        std::memcpy(&input.quads[at][k][lane], values + 4 * k, sizeof(int32_t));
      }
      input.starts[at][lane] = -8 * x.sums[token * x.stride + block];
      input.scales[at][lane] = x.scales[token * x.stride + (at * kLanes + lane) % blocks];
    }
  }
}

// The scaled products of 16 blocks, in their natural order.
inline __m512 stream_products(const __m512i weights[8], __m512 scales, const StreamInput& input,
                              int64_t at) {
  __m512i even = _mm512_load_si512(input.starts[at]), odd = _mm512_setzero_si512();
  for (int k = 0; k < 4; ++k) {
    even = _mm512_dpbusd_epi32(even, weights[k], _mm512_load_si512(input.quads[at][k]));
    odd = _mm512_dpbusd_epi32(odd, weights[k + 4], _mm512_load_si512(input.quads[at][k + 4]));
  }
  const __m512i natural = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const __m512i exact = _mm512_permutexvar_epi32(natural, _mm512_add_epi32(even, odd));
  const __m512 scale = _mm512_mul_ps(scales, _mm512_load_ps(input.scales[at]));
  return _mm512_mul_ps(_mm512_cvtepi32_ps(exact), scale);
}

// Adds 8 columns of 16 rows, one column after the other, to sums whose 128-bit lanes are the rows
// 0-3, 8-11, 4-7, 12-15.
inline __m512 add_columns(const float* products, int64_t stride, __m512 sums) {
  __m512 x[8];
  for (int64_t i = 0; i < 8; ++i) {
    const __m512 low = _mm512_castps256_ps512(_mm256_loadu_ps(products + i * stride));
    x[i] = _mm512_insertf32x8(low, _mm256_loadu_ps(products + (i + 8) * stride), 1);
  }
  __m512i upper[4], lower[4];
  for (int i = 0; i < 4; ++i) {
    upper[i] = _mm512_castps_si512(x[i]);
    lower[i] = _mm512_castps_si512(x[i + 4]);
  }
  transpose_dwords(upper);
  transpose_dwords(lower);
  for (int half = 0; half < 2; ++half) {
    for (int i = 0; i < 4; ++i) {
      const __m512 a = _mm512_castsi512_ps(upper[i]), b = _mm512_castsi512_ps(lower[i]);
      sums = _mm512_add_ps(sums, half == 0 ? _mm512_shuffle_f32x4(a, b, _MM_SHUFFLE(2, 0, 2, 0))
                                           : _mm512_shuffle_f32x4(a, b, _MM_SHUFFLE(3, 1, 3, 1)));
    }
  }
  return sums;
}

inline __m512 row_sums(const float* products, int64_t blocks) {
  __m512 sums = _mm512_setzero_ps();
  for (int64_t b = 0; b < blocks; b += 8) sums = add_columns(products + b, blocks, sums);
  return _mm512_shuffle_f32x4(sums, sums, _MM_SHUFFLE(3, 1, 2, 0));
}

// 16 rows from `row` on.
template <int Tokens>
void stream_rows(const Int4Matrix& w, int64_t row, const StreamInput* inputs, int64_t stride,
                 float* y) {
  alignas(64) float products[Tokens][kLanes * kStreamBlocks];
  const int64_t blocks = w.columns / kGroupSize, period = stream_period(blocks);
  const uint8_t* bytes = row_bytes(w, row);
  const uint8_t* scales = row_scales(w, row);
  int64_t at = 0;
  for (int64_t i = 0; i < blocks; ++i) {
    __m512i x[4], weights[8];
    for (int64_t k = 0; k < 4; ++k) {
      const uint8_t* line = bytes + 256 * i + 64 * k;
      _mm_prefetch(line + kStreamAhead, _MM_HINT_T2);
      x[k] = load_bytes(line);
    }
    _mm_prefetch(scales + 2 * kLanes * i + kStreamAhead / 8, _MM_HINT_T2);
    transpose_dwords(x);
    for (int k = 0; k < 4; ++k) {
      weights[k] = low_nibbles(x[k]);
      weights[k + 4] = high_nibbles(x[k]);
    }
    const auto* halves = reinterpret_cast<const __m256i*>(scales + 2 * kLanes * i);
    const __m512 floats = _mm512_cvtph_ps(_mm256_loadu_si256(halves));
    for (int t = 0; t < Tokens; ++t) {
      _mm512_store_ps(products[t] + kLanes * i, stream_products(weights, floats, inputs[t], at));
    }
    at = at + 1 == period ? 0 : at + 1;
  }
  for (int t = 0; t < Tokens; ++t) _mm512_storeu_ps(y + t * stride, row_sums(products[t], blocks));
}

// Rows begin to end, whose number is a multiple of 16.
template <int Tokens>
void stream(const Int4Matrix& w, const QuantizedRows& x, int64_t begin, int64_t end, float* y_TO) {
  StreamInput inputs[Tokens];
  for (int t = 0; t < Tokens; ++t) lay_out(x, t, inputs[t]);
  for (int64_t row = begin; row < end; row += kLanes) {
    stream_rows<Tokens>(w, row, inputs, w.rows, y_TO + row);
  }
}

}  // namespace
}  // namespace mobilemoe
