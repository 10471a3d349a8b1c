// The reference kernels: plain C++, the same on every machine.
#include <limits>

#include "exp_inline.h"
#include "kernel_tiles.h"
#include "quantize_scale.h"

namespace mobilemoe {
namespace {

// Rounds |x| < 2^22 to the nearest integer, ties to even, without a library call.
float round_half_even(float x) {
  constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23: its unit in the last place is 1
  return (x + kMagic) - kMagic;
}

uint32_t largest_magnitude_bits(const float* x) {
  uint32_t largest = 0;
  for (int64_t i = 0; i < kGroupSize; ++i) {
    const uint32_t bits = std::bit_cast<uint32_t>(x[i]) & 0x7FFFFFFFu;
    largest = bits > largest ? bits : largest;
  }
  return largest;
}

// Quantises 32 floats in their natural order; returns the scale.
float quantize_block(const float* x, int32_t* values) {
  const BlockScale scale = block_scale(largest_magnitude_bits(x));
  for (int64_t i = 0; i < kGroupSize; ++i) {
    // An inverse of 0 marks a block without finite size: 0 * NaN must not reach the cast.
    const float scaled = scale.inverse == 0.0f ? 0.0f : x[i] * scale.inverse;
    values[i] = static_cast<int32_t>(round_half_even(scaled));
  }
  return scale.scale;
}

void scale_row(const float* x_I, int64_t width, float* values_I, float* scales) {
  for (int64_t first = 0; first < width; first += kGroupSize) {
    const BlockScale scale = block_scale(largest_magnitude_bits(x_I + first));
    for (int64_t i = first; i < first + kGroupSize; ++i) {
      values_I[i] = scale.inverse == 0.0f ? 0.0f : x_I[i] * scale.inverse;
    }
    scales[first / kGroupSize] = scale.scale;
  }
}

void quantize_row(const float* x_I, int64_t width, int8_t* values, float* scales, int32_t* sums,
                  float* rest_I) {
  for (int64_t block = 0; block < width / kGroupSize; ++block) {
    int32_t block_values[kGroupSize];
    scales[block] = quantize_block(x_I + block * kGroupSize, block_values);
    int8_t* out = values + block * kGroupSize;
    int32_t sum = 0;
    for (int64_t i = 0; i < kGroupSize / 2; ++i) {
      out[i] = static_cast<int8_t>(block_values[2 * i]);
      out[i + 16] = static_cast<int8_t>(block_values[2 * i + 1]);
      sum += block_values[2 * i] + block_values[2 * i + 1];
    }
    sums[block] = sum;
    for (int64_t i = 0; rest_I != nullptr && i < kGroupSize; ++i) {
      const int64_t at = block * kGroupSize + i;
      rest_I[at] = x_I[at] - static_cast<float>(block_values[i]) * scales[block];
    }
  }
}

// What the linear kernels with float activations share: sums over a strip of float weights.
struct LinearSums {
  struct Input {
    const float* x;
    int64_t width;
  };
  struct Accumulator {
    float sum;
  };
  struct Strip {
    float weights[kStripBlocks * kGroupSize];
  };

  static void accumulate(const Strip& strip, const Input& input, int64_t token, int64_t block,
                         int64_t count, Accumulator& total) {
    const float* x = input.x + token * input.width + block * kGroupSize;
    float lanes[8] = {};  // independent partial sums: faster, and more accurate than one
    for (int64_t i = 0; i < count * kGroupSize; i += 8) {
      for (int64_t lane = 0; lane < 8; ++lane) {
        lanes[lane] += strip.weights[i + lane] * x[i + lane];
      }
    }
    for (const float lane : lanes) total.sum += lane;
  }

  static float finish(const Accumulator& total) { return total.sum; }
};

struct LinearFp32 : LinearSums {
  using Matrix = Int4Matrix;

  static void unpack(const Int4Matrix& w, int64_t row, int64_t block, int64_t count,
                     Strip& strip) {
    const uint8_t* bytes = row_bytes(w, row) + block * (kGroupSize / 2);
    for (int64_t i = 0; i < count * kGroupSize / 2; ++i) {
      const float scale = half_at(row_scales(w, row), block + i / (kGroupSize / 2));
      strip.weights[2 * i] = static_cast<float>(nibble_value(bytes[i] & 15)) * scale;
      strip.weights[2 * i + 1] = static_cast<float>(nibble_value(bytes[i] >> 4)) * scale;
    }
  }
};

struct LinearBf16 : LinearSums {
  using Matrix = Bf16Matrix;

  static void unpack(const Bf16Matrix& w, int64_t row, int64_t block, int64_t count,
                     Strip& strip) {
    for (int64_t i = 0; i < count * kGroupSize; ++i) {
      strip.weights[i] = bfloat16_at(row_bits(w, row), block * kGroupSize + i);
    }
  }
};

struct LinearInt8 {
  using Matrix = Int4Matrix;
  using Input = QuantizedRows;
  struct Accumulator {
    float sum;
  };
  struct Strip {
    int8_t weights[kStripBlocks * kGroupSize];  // even elements of a block first
    float scales[kStripBlocks];
  };

  static void unpack(const Int4Matrix& w, int64_t row, int64_t block, int64_t count,
                     Strip& strip) {
    for (int64_t b = 0; b < count; ++b) {
      const uint8_t* bytes = row_bytes(w, row) + (block + b) * (kGroupSize / 2);
      int8_t* out = strip.weights + b * kGroupSize;
      for (int64_t i = 0; i < kGroupSize / 2; ++i) {
        out[i] = static_cast<int8_t>(nibble_value(bytes[i] & 15));
        out[i + 16] = static_cast<int8_t>(nibble_value(bytes[i] >> 4));
      }
      strip.scales[b] = half_at(row_scales(w, row), block + b);
    }
  }

  static void accumulate(const Strip& strip, const Input& x, int64_t token, int64_t block,
                         int64_t count, Accumulator& total) {
    const int8_t* values = x.values + token * x.width + block * kGroupSize;
    const float* scales = x.scales + token * x.stride + block;
    for (int64_t b = 0; b < count; ++b) {
      int32_t sum = 0;
      for (int64_t i = b * kGroupSize; i < (b + 1) * kGroupSize; ++i) {
        sum += int32_t{strip.weights[i]} * int32_t{values[i]};
      }
      total.sum += static_cast<float>(sum) * (strip.scales[b] * scales[b]);
    }
  }

  static float finish(const Accumulator& total) { return total.sum; }
};

// What the INT4 expert kernels share: a tile of signed weights and the scales of its rows.
struct ExpertTile {
  using Matrix = Int4Matrix;
  struct Tile {
    int8_t weights[kGroupSize][kGroupSize];  // [input, output]
  };

  static void scales(const Int4Matrix& w, int64_t input, int64_t group, int64_t groups,
                     float (*out)[kGroupSize]) {
    for (int64_t i = 0; i < kGroupSize; ++i) {
      const uint8_t* row = row_scales(w, input + i);
      for (int64_t g = 0; g < groups; ++g) out[g][i] = half_at(row, group + g);
    }
  }

  static void unpack(const Int4Matrix& w, int64_t input, int64_t group, Tile& tile) {
    for (int64_t i = 0; i < kGroupSize; ++i) {
      const uint8_t* bytes = row_bytes(w, input + i) + group * (kGroupSize / 2);
      for (int64_t c = 0; c < kGroupSize / 2; ++c) {
        tile.weights[i][2 * c] = static_cast<int8_t>(nibble_value(bytes[c] & 15));
        tile.weights[i][2 * c + 1] = static_cast<int8_t>(nibble_value(bytes[c] >> 4));
      }
    }
  }

  static void finish(float*) {}
};

// y += (x * scales) tile, in floats.
template <class Tile>
void add_products(const Tile& tile, const float* scales, const float* x, float* y) {
  float sums[kGroupSize] = {};
  for (int64_t i = 0; i < kGroupSize; ++i) {
    for (int64_t c = 0; c < kGroupSize; ++c) {
      sums[c] += x[i] * (static_cast<float>(tile.weights[i][c]) * scales[i]);
    }
  }
  for (int64_t c = 0; c < kGroupSize; ++c) y[c] += sums[c];
}

struct ExpertFp32 : ExpertTile {
  static constexpr auto accumulate = add_products<Tile>;
};

struct ExpertBf16 {
  using Matrix = Bf16Matrix;
  struct Tile {
    float weights[kGroupSize][kGroupSize];  // [input, output]
  };

  static constexpr auto scales = unit_scales;
  static constexpr auto accumulate = add_products<Tile>;

  static void unpack(const Bf16Matrix& w, int64_t input, int64_t group, Tile& tile) {
    for (int64_t i = 0; i < kGroupSize; ++i) {
      for (int64_t c = 0; c < kGroupSize; ++c) {
        tile.weights[i][c] = bfloat16_at(row_bits(w, input + i), group * kGroupSize + c);
      }
    }
  }

  static void finish(float*) {}
};

// b[i] of a block of 32 inputs and one group, and the scale that both share.
struct FoldedBlock {
  int32_t values[kGroupSize];
  float scale;
};

// Rounds a product of two floats, exact in double, to the nearest integer, ties to even.
int32_t rounded_product(float a, float b) {
  constexpr double kMagic = 6755399441055744.0;  // 1.5 * 2^52: its unit in the last place is 1
  return static_cast<int32_t>((static_cast<double>(a) * static_cast<double>(b) + kMagic) - kMagic);
}

FoldedBlock fold_block(const Int4Matrix& w, int64_t input, int64_t group, const float* values,
                       float scale) {
  uint16_t largest = 0;
  for (int64_t i = 0; i < kGroupSize; ++i) {
    const uint16_t bits = load_u16(row_scales(w, input + i) + 2 * group) & 0x7FFFu;
    largest = bits > largest ? bits : largest;
  }
  const FoldScale fold = fold_scale(largest);
  FoldedBlock out{{}, scale * fold.scale};
  if (fold.inverse == 0.0f) return out;
  for (int64_t i = 0; i < kGroupSize; ++i) {
    const float ratio = half_at(row_scales(w, input + i), group) * fold.inverse;
    out.values[i] = rounded_product(values[i], ratio);
  }
  return out;
}

// y[32] += one block of 32 inputs times the group's 32 columns.
void add_folded(const Int4Matrix& w, int64_t input, int64_t group, const FoldedBlock& b,
                float* y) {
  int32_t sums[kGroupSize] = {};
  for (int64_t i = 0; i < kGroupSize; ++i) {
    const uint8_t* bytes = row_bytes(w, input + i) + group * (kGroupSize / 2);
    for (int64_t c = 0; c < kGroupSize / 2; ++c) {
      sums[2 * c] += b.values[i] * nibble_value(bytes[c] & 15);
      sums[2 * c + 1] += b.values[i] * nibble_value(bytes[c] >> 4);
    }
  }
  for (int64_t c = 0; c < kGroupSize; ++c) y[c] += static_cast<float>(sums[c]) * b.scale;
}

void expert_int8(const Int4Matrix& w_IO, const ScaledRows& x_TI, const int32_t* rows_S,
                 int64_t slots, int64_t begin, int64_t end, float* y_SO) {
  for (int64_t s = 0; s < slots; ++s) {
    const float* values = x_TI.values + rows_S[s] * x_TI.width;
    const float* scales = x_TI.scales + rows_S[s] * (x_TI.width / kGroupSize);
    for (int64_t group = begin; group < end; ++group) {
      float* y = y_SO + s * w_IO.columns + group * kGroupSize;
      for (int64_t c = 0; c < kGroupSize; ++c) y[c] = 0.0f;
      for (int64_t input = 0; input < w_IO.rows; input += kGroupSize) {
        const float scale = scales[input / kGroupSize];
        add_folded(w_IO, input, group, fold_block(w_IO, input, group, values + input, scale), y);
      }
    }
  }
}

// Rows of floats: what the exact kernels of either format read.
template <class Ops>
void linear_floats(const typename Ops::Matrix& w, const float* x, int64_t tokens, int64_t begin,
                   int64_t end, float* y) {
  linear_rows<Ops>(w, {x, w.columns}, tokens, begin, end, y);
}

void silu_multiply(const float* gate, const float* up, int64_t width, float* out) {
  for (int64_t i = 0; i < width; ++i) out[i] = gate[i] / (1.0f + exp_inline(-gate[i])) * up[i];
}

void widen_fp16(const uint16_t* halves, int64_t width, float* out) {
  for (int64_t i = 0; i < width; ++i) out[i] = half_to_float(halves[i]);
}

float dot(const float* a, const float* b, int64_t width) {
  float lanes[8] = {};
  int64_t i = 0;
  for (; i + 8 <= width; i += 8) {
    for (int64_t lane = 0; lane < 8; ++lane) lanes[lane] += a[i + lane] * b[i + lane];
  }
  float sum = 0.0f;
  for (const float lane : lanes) sum += lane;
  for (; i < width; ++i) sum += a[i] * b[i];
  return sum;
}

void attention_scores(const float* q, const float* k, int64_t positions, int64_t d, float factor,
                      float* scores) {
  for (int64_t n = 0; n < positions; ++n) scores[n] = factor * dot(q, k + n * d, d);
}

void attention_values(const float* p, const float* v, int64_t positions, int64_t d, float* out) {
  for (int64_t i = 0; i < d; ++i) out[i] = 0.0f;
  for (int64_t n = 0; n < positions; ++n) {
    for (int64_t i = 0; i < d; ++i) out[i] += p[n] * v[n * d + i];
  }
}

// One query row of attend_int8.
struct QueryRow {
  const int8_t* high;
  const int8_t* low;
  float scale;
  int64_t d;
};

float score(const Int8Cache& cache, const QueryRow& q, int64_t n) {
  const int8_t* k = cache.keys + n / kKeyLanes * kKeyLanes * q.d + n % kKeyLanes * 4;
  int32_t high = 0, low = 0;
  for (int64_t i = 0; i < q.d; ++i) {
    const int32_t key = k[i / 4 * 4 * kKeyLanes + i % 4];
    high += q.high[i] * key;
    low += q.low[i] * key;
  }
  return static_cast<float>(128 * high + low) * (cache.key_scales[n] * q.scale);
}

// The running state of an online softmax.
struct Softmax {
  float largest = -std::numeric_limits<float>::infinity();
  float sum = 0.0f;
};

// Turns `count` scores into weights in place; returns the factor of everything before.
float weigh(float* scores, int64_t count, Softmax& state) {
  const float before = state.largest;
  for (int64_t n = 0; n < count; ++n) {
    state.largest = scores[n] > state.largest ? scores[n] : state.largest;
  }
  const float factor = exp_inline(before - state.largest);
  float sum = 0.0f;
  for (int64_t n = 0; n < count; ++n) {
    scores[n] = exp_inline(scores[n] - state.largest);
    sum += scores[n];
  }
  state.sum = state.sum * factor + sum;
  return factor;
}

// out = out * factor + sum_n p[n] v[n] for the positions first to first + count.
void add_values(const Int8Cache& cache, const float* p, int64_t first, int64_t count,
                int64_t d, float factor, float* out) {
  float weights[kPositionBlock];
  uint32_t largest_bits = 0;
  for (int64_t n = 0; n < count; ++n) {
    weights[n] = p[n] * cache.value_scales[first + n];
    const uint32_t bits = std::bit_cast<uint32_t>(weights[n]) & 0x7FFFFFFFu;
    largest_bits = bits > largest_bits ? bits : largest_bits;
  }
  const WeightScale scale = weight_scale(largest_bits);
  int32_t integers[kPositionBlock] = {};
  for (int64_t n = 0; n < count; ++n) {
    if (scale.inverse == 0.0f) break;
    integers[n] = static_cast<int32_t>(round_half_even(weights[n] * scale.inverse));
  }
  for (int64_t i = 0; i < d; ++i) {
    int32_t sum = 0;
    for (int64_t n = 0; n < count; ++n) {
      sum += integers[n] * cache.values[((first + n) / 4 * d + i) * 4 + (first + n) % 4];
    }
    out[i] = out[i] * factor + static_cast<float>(sum) * scale.scale;
  }
}

void attend_int8(const Int8Cache& cache, const Int8Queries& queries, float* const* out_R) {
  const int64_t d = queries.d;
  for (int64_t r = 0; r < queries.rows; ++r) {
    const QueryRow q{queries.high + r * d, queries.low + r * d, queries.scales[r], d};
    float* out = out_R[r];
    for (int64_t i = 0; i < d; ++i) out[i] = 0.0f;
    Softmax state;
    for (int64_t first = 0; first < queries.positions[r]; first += kPositionBlock) {
      const int64_t count = smaller(kPositionBlock, queries.positions[r] - first);
      float scores[kPositionBlock];
      for (int64_t n = 0; n < count; ++n) scores[n] = score(cache, q, first + n);
      const float factor = weigh(scores, count, state);
      add_values(cache, scores, first, count, d, factor, out);
    }
    const float inverse = 1.0f / state.sum;
    for (int64_t i = 0; i < d; ++i) out[i] *= inverse;
  }
}

}  // namespace

void portable_silu_multiply(const float* gate, const float* up, int64_t width, float* out) {
  silu_multiply(gate, up, width, out);
}

void portable_scale_row(const float* x_I, int64_t width, float* values_I, float* scales) {
  scale_row(x_I, width, values_I, scales);
}

void portable_expert_int8(const Int4Matrix& w_IO, const ScaledRows& x_TI, const int32_t* rows_S,
                          int64_t slots, int64_t begin, int64_t end, float* y_SO) {
  expert_int8(w_IO, x_TI, rows_S, slots, begin, end, y_SO);
}

void portable_attend_int8(const Int8Cache& cache, const Int8Queries& queries,
                          float* const* out_R) {
  attend_int8(cache, queries, out_R);
}

const Kernels kPortableKernels = {
    .name = "portable",
    .quantize_row = quantize_row,
    .linear_fp32 = linear_floats<LinearFp32>,
    .linear_int8 = linear_rows<LinearInt8>,
    .linear_bf16 = linear_floats<LinearBf16>,
    .scale_row = scale_row,
    .expert_fp32 = expert_groups<ExpertFp32>,
    .expert_int8 = expert_int8,
    .expert_bf16 = expert_groups<ExpertBf16>,
    .silu_multiply = silu_multiply,
    .widen_fp16 = widen_fp16,
    .dot = dot,
    .attention_scores = attention_scores,
    .attention_values = attention_values,
    .attend_int8 = attend_int8,
};

}  // namespace mobilemoe
