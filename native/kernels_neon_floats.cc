// The products and attention of float activations, NEON. Floats are added in another order than
// in the portable kernels, and multiplied and added with one rounding.
#include "kernel_tiles.h"
#include "kernels_neon.h"
#include "neon_blocks.h"

namespace mobilemoe {
namespace {

constexpr int64_t kRegisters = kGroupSize / kLanes;

inline void store_block(const float32x4_t values[kRegisters], float* out) {
  for (int64_t i = 0; i < kRegisters; ++i) vst1q_f32(out + i * kLanes, values[i]);
}

// 16 bytes with 32 nibbles as floats in their natural order.
inline void unpack_floats(const uint8_t* bytes, float32x4_t out[kRegisters]) {
  const int8x16_t packed = load_16(bytes);
  const int8x16_t low = low_nibbles(packed), high = high_nibbles(packed);
  const int8x16_t natural[2] = {vzip1q_s8(low, high), vzip2q_s8(low, high)};
  for (int i = 0; i < 2; ++i) {
    const int16x8_t wide[2] = {vmovl_s8(vget_low_s8(natural[i])), vmovl_high_s8(natural[i])};
    for (int j = 0; j < 2; ++j) {
      out[4 * i + 2 * j] = vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide[j])));
      out[4 * i + 2 * j + 1] = vcvtq_f32_s32(vmovl_high_s16(wide[j]));
    }
  }
}

// 32 bfloat16 values as floats: their bits are the upper halves.
inline void widen_bfloat16(const uint8_t* bits, float32x4_t out[kRegisters]) {
  for (int64_t i = 0; i < kRegisters; ++i) {
    const uint16x4_t halves = vreinterpret_u16_u8(vld1_u8(bits + i * kLanes * 2));
    out[i] = vreinterpretq_f32_u32(vshll_n_u16(halves, 16));
  }
}

// What the linear kernels share: sums over a strip of float weights.
struct LinearSums {
  struct Input {
    const float* x;
    int64_t width;
  };
  struct Accumulator {
    float32x4_t sums[4];
  };
  struct Strip {
    alignas(16) float weights[kStripBlocks * kGroupSize];
  };

  static void accumulate(const Strip& strip, const Input& input, int64_t token, int64_t block,
                         int64_t count, Accumulator& total) {
    const float* x = input.x + token * input.width + block * kGroupSize;
    for (int64_t first = 0; first < count * kGroupSize; first += 4 * kLanes) {
      for (int64_t i = 0; i < 4; ++i) {
        const int64_t at = first + i * kLanes;
        total.sums[i] = vfmaq_f32(total.sums[i], vld1q_f32(strip.weights + at), vld1q_f32(x + at));
      }
    }
  }

  static float finish(const Accumulator& total) {
    return vaddvq_f32(vaddq_f32(vaddq_f32(total.sums[0], total.sums[1]),
                                vaddq_f32(total.sums[2], total.sums[3])));
  }
};

struct LinearFp32 : LinearSums {
  using Matrix = Int4Matrix;

  static void unpack(const Int4Matrix& w, int64_t row, int64_t block, int64_t count,
                     Strip& strip) {
    const uint8_t* bytes = row_bytes(w, row) + block * (kGroupSize / 2);
    for (int64_t b = 0; b < count; ++b) {
      const float scale = half_at(row_scales(w, row), block + b);
      float32x4_t values[kRegisters];
      unpack_floats(bytes + b * (kGroupSize / 2), values);
      for (float32x4_t& value : values) value = vmulq_n_f32(value, scale);
      store_block(values, strip.weights + b * kGroupSize);
    }
  }
};

struct LinearBf16 : LinearSums {
  using Matrix = Bf16Matrix;

  static void unpack(const Bf16Matrix& w, int64_t row, int64_t block, int64_t count,
                     Strip& strip) {
    for (int64_t b = 0; b < count; ++b) {
      float32x4_t values[kRegisters];
      widen_bfloat16(row_bits(w, row) + (block + b) * kGroupSize * 2, values);
      store_block(values, strip.weights + b * kGroupSize);
    }
  }
};

// scales[g][i] of 32 inputs and up to 8 groups: the file's [input, group] order, transposed.
void expert_scales(const Int4Matrix& w, int64_t input, int64_t group, int64_t groups,
                   float (*scales)[kGroupSize]) {
  for (int64_t g = 0; g < groups; g += kLanes) {
    for (int64_t first = 0; first < kGroupSize; first += kLanes) {
      float32x4_t rows[kLanes];
      for (int64_t i = 0; i < kLanes; ++i) {
        const uint8_t* halves = row_scales(w, input + first + i) + 2 * (group + g);
        rows[i] = floats_of(load_halves(halves, groups - g));
      }
      transpose(rows);
      for (int64_t i = 0; i < kLanes; ++i) vst1q_f32(scales[g + i] + first, rows[i]);
    }
  }
}

// What the expert kernels share: a tile of float weights.
struct ExpertSums {
  struct Tile {
    alignas(16) float weights[kGroupSize][kGroupSize];  // [input, output], without scale
  };

  static void accumulate(const Tile& tile, const float* scales, const float* x, float* y) {
    float32x4_t sums[kRegisters];
    for (float32x4_t& sum : sums) sum = vdupq_n_f32(0.0f);
    for (int64_t i = 0; i < kGroupSize; ++i) {
      const float folded = x[i] * scales[i];
      for (int64_t j = 0; j < kRegisters; ++j) {
        sums[j] = vfmaq_n_f32(sums[j], vld1q_f32(tile.weights[i] + j * kLanes), folded);
      }
    }
    for (int64_t j = 0; j < kRegisters; ++j) {
      float* out = y + j * kLanes;
      vst1q_f32(out, vaddq_f32(vld1q_f32(out), sums[j]));
    }
  }

  static void finish(float*) {}
};

struct ExpertFp32 : ExpertSums {
  using Matrix = Int4Matrix;

  static constexpr auto scales = expert_scales;

  static void unpack(const Int4Matrix& w, int64_t input, int64_t group, Tile& tile) {
    for (int64_t i = 0; i < kGroupSize; ++i) {
      float32x4_t values[kRegisters];
      unpack_floats(row_bytes(w, input + i) + group * (kGroupSize / 2), values);
      store_block(values, tile.weights[i]);
    }
  }
};

struct ExpertBf16 : ExpertSums {
  using Matrix = Bf16Matrix;

  static constexpr auto scales = unit_scales;

  static void unpack(const Bf16Matrix& w, int64_t input, int64_t group, Tile& tile) {
    for (int64_t i = 0; i < kGroupSize; ++i) {
      float32x4_t values[kRegisters];
      widen_bfloat16(row_bits(w, input + i) + group * kGroupSize * 2, values);
      store_block(values, tile.weights[i]);
    }
  }
};

// Rows of floats: what the exact kernels of either format read.
template <class Ops>
void linear_floats(const typename Ops::Matrix& w, const float* x, int64_t tokens, int64_t begin,
                   int64_t end, float* y) {
  linear_rows<Ops>(w, {x, w.columns}, tokens, begin, end, y);
}

void silu_multiply(const float* gate, const float* up, int64_t width, float* out) {
  for (int64_t i = 0; i < width; i += kLanes) {
    const int64_t count = smaller(kLanes, width - i);
    const float32x4_t g = load_floats(gate + i, count), u = load_floats(up + i, count);
    const float32x4_t exponential = exp_lanes(vsubq_f32(vdupq_n_f32(0.0f), g));
    const float32x4_t silu = vdivq_f32(g, vaddq_f32(vdupq_n_f32(1.0f), exponential));
    store_floats(out + i, count, vmulq_f32(silu, u));
  }
}

void widen_fp16(const uint16_t* halves, int64_t width, float* out) {
  for (int64_t i = 0; i < width; i += kLanes) {
    const int64_t count = smaller(kLanes, width - i);
    const auto* bytes = reinterpret_cast<const uint8_t*>(halves + i);
    store_floats(out + i, count, floats_of(load_halves(bytes, count)));
  }
}

float dot(const float* a, const float* b, int64_t width) {
  float32x4_t sums[4];
  for (float32x4_t& sum : sums) sum = vdupq_n_f32(0.0f);
  int64_t i = 0;
  for (; i + 4 * kLanes <= width; i += 4 * kLanes) {
    for (int64_t j = 0; j < 4; ++j) {
      sums[j] = vfmaq_f32(sums[j], vld1q_f32(a + i + j * kLanes), vld1q_f32(b + i + j * kLanes));
    }
  }
  float sum = vaddvq_f32(vaddq_f32(vaddq_f32(sums[0], sums[1]), vaddq_f32(sums[2], sums[3])));
  for (; i < width; ++i) sum += a[i] * b[i];
  return sum;
}

void attention_scores(const float* q, const float* k, int64_t positions, int64_t d, float factor,
                      float* scores) {
  for (int64_t n = 0; n < positions; ++n) scores[n] = factor * dot(q, k + n * d, d);
}

// out[0 .. 4 * Registers] for consecutive columns from `v` on.
template <int Registers>
void weighted_columns(const float* p, const float* v, int64_t positions, int64_t d, float* out) {
  float32x4_t sums[Registers];
  for (float32x4_t& sum : sums) sum = vdupq_n_f32(0.0f);
  for (int64_t n = 0; n < positions; ++n) {
    for (int64_t j = 0; j < Registers; ++j) {
      sums[j] = vfmaq_n_f32(sums[j], vld1q_f32(v + n * d + j * kLanes), p[n]);
    }
  }
  for (int64_t j = 0; j < Registers; ++j) vst1q_f32(out + j * kLanes, sums[j]);
}

void attention_values(const float* p, const float* v, int64_t positions, int64_t d, float* out) {
  int64_t i = 0;
  for (; i + 16 * kLanes <= d; i += 16 * kLanes) {
    weighted_columns<16>(p, v + i, positions, d, out + i);
  }
  for (; i + kLanes <= d; i += kLanes) weighted_columns<1>(p, v + i, positions, d, out + i);
  for (; i < d; ++i) {
    float sum = 0.0f;
    for (int64_t n = 0; n < positions; ++n) sum += p[n] * v[n * d + i];
    out[i] = sum;
  }
}

}  // namespace

Kernels neon_float_table(Kernels base) {
  base.linear_fp32 = linear_floats<LinearFp32>;
  base.linear_bf16 = linear_floats<LinearBf16>;
  base.expert_fp32 = expert_groups<ExpertFp32>;
  base.expert_bf16 = expert_groups<ExpertBf16>;
  base.silu_multiply = silu_multiply;
  base.widen_fp16 = widen_fp16;
  base.dot = dot;
  base.attention_scores = attention_scores;
  base.attention_values = attention_values;
  return base;
}

}  // namespace mobilemoe
