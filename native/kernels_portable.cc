// The reference kernels: plain C++, the same on every machine.
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

void quantize_row(const float* x_I, int64_t width, int8_t* values, float* scales, int32_t* sums) {
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

struct ExpertInt8 : ExpertTile {
  static void accumulate(const Tile& tile, const float* scales, const float* x, float* y) {
    float folded[kGroupSize];
    int32_t values[kGroupSize];
    int32_t sums[kGroupSize] = {};
    for (int64_t i = 0; i < kGroupSize; ++i) folded[i] = x[i] * scales[i];
    const float scale = quantize_block(folded, values);
    for (int64_t i = 0; i < kGroupSize; ++i) {
      for (int64_t c = 0; c < kGroupSize; ++c) sums[c] += values[i] * tile.weights[i][c];
    }
    for (int64_t c = 0; c < kGroupSize; ++c) y[c] += static_cast<float>(sums[c]) * scale;
  }
};

// Rows of floats: what the exact kernels of either format read.
template <class Ops>
void linear_floats(const typename Ops::Matrix& w, const float* x, int64_t tokens, int64_t begin,
                   int64_t end, float* y) {
  linear_rows<Ops>(w, {x, w.columns}, tokens, begin, end, y);
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

}  // namespace

const Kernels kPortableKernels = {
    .name = "portable",
    .quantize_row = quantize_row,
    .linear_fp32 = linear_floats<LinearFp32>,
    .linear_int8 = linear_rows<LinearInt8>,
    .linear_bf16 = linear_floats<LinearBf16>,
    .expert_fp32 = expert_groups<ExpertFp32>,
    .expert_int8 = expert_groups<ExpertInt8>,
    .expert_bf16 = expert_groups<ExpertBf16>,
    .dot = dot,
    .attention_scores = attention_scores,
    .attention_values = attention_values,
};

}  // namespace mobilemoe
