// The kernels for AVX2, FMA and F16C: the float ones here, the integer ones from the headers that
// they share with the VNNI tables. Integer kernels equal the portable ones bit for bit; floats are
// added in another order.
#include "avx2_attention.h"
#include "avx2_expert.h"
#include "avx2_linear.h"

namespace mobilemoe {
namespace {

void quantize_row(const float* x_I, int64_t width, int8_t* values, float* scales, int32_t* sums,
                  float* rest_I) {
  for (int64_t block = 0; block < width / kGroupSize; ++block) {
    __m256 x[4];
    for (int i = 0; i < 4; ++i) x[i] = _mm256_loadu_ps(x_I + block * kGroupSize + i * kLanes);
    const QuantizedBlock quantized = quantize_block(x);
    auto* out = reinterpret_cast<__m256i*>(values + block * kGroupSize);
    _mm256_storeu_si256(out, even_odd_order(quantized.values));
    scales[block] = quantized.scale;
    sums[block] = sum_bytes(quantized.values);
    if (rest_I == nullptr) continue;
    __m256 rounded[4];
    widen_int8(quantized.values, rounded);
    const __m256 step = _mm256_set1_ps(quantized.scale);
    for (int i = 0; i < 4; ++i) {
      const __m256 rest = _mm256_sub_ps(x[i], _mm256_mul_ps(rounded[i], step));
      _mm256_storeu_ps(rest_I + block * kGroupSize + i * kLanes, rest);
    }
  }
}

void scale_row(const float* x_I, int64_t width, float* values_I, float* scales) {
  for (int64_t first = 0; first < width; first += kGroupSize) {
    __m256 x[4];
    for (int i = 0; i < 4; ++i) x[i] = _mm256_loadu_ps(x_I + first + i * kLanes);
    const BlockScale scale = block_scale(largest_magnitude_bits(x));
    const __m256 inverse = _mm256_set1_ps(scale.inverse);
    // An inverse of 0 marks a block without finite size: 0 * NaN must not come through.
    const __m256 usable = _mm256_cmp_ps(inverse, _mm256_setzero_ps(), _CMP_NEQ_OQ);
    for (int i = 0; i < 4; ++i) {
      const __m256 values = _mm256_and_ps(_mm256_mul_ps(x[i], inverse), usable);
      _mm256_storeu_ps(values_I + first + i * kLanes, values);
    }
    scales[first / kGroupSize] = scale.scale;
  }
}

// What the linear kernels with float activations share: sums over a strip of float weights.
struct LinearSums {
  struct Input {
    const float* x;
    int64_t width;
  };
  struct Accumulator {
    __m256 sums[4];
  };
  struct Strip {
    alignas(32) float weights[kStripBlocks * kGroupSize];
  };

  static void accumulate(const Strip& strip, const Input& input, int64_t token, int64_t block,
                         int64_t count, Accumulator& total) {
    const float* x = input.x + token * input.width + block * kGroupSize;
    for (int64_t b = 0; b < count * kGroupSize; b += kGroupSize) {
      for (int64_t i = 0; i < 4; ++i) {
        total.sums[i] = _mm256_fmadd_ps(_mm256_load_ps(strip.weights + b + i * kLanes),
                                        _mm256_loadu_ps(x + b + i * kLanes), total.sums[i]);
      }
    }
  }

  static float finish(const Accumulator& total) {
    return sum_lanes(_mm256_add_ps(_mm256_add_ps(total.sums[0], total.sums[1]),
                                   _mm256_add_ps(total.sums[2], total.sums[3])));
  }
};

struct LinearFp32 : LinearSums {
  using Matrix = Int4Matrix;

  static void unpack(const Int4Matrix& w, int64_t row, int64_t block, int64_t count,
                     Strip& strip) {
    const uint8_t* bytes = row_bytes(w, row) + block * (kGroupSize / 2);
    for (int64_t b = 0; b < count; ++b) {
      const __m256 scale = _mm256_set1_ps(half_at(row_scales(w, row), block + b));
      __m256 values[4];
      unpack_floats(bytes + b * (kGroupSize / 2), values);
      float* out = strip.weights + b * kGroupSize;
      for (int64_t i = 0; i < 4; ++i) {
        _mm256_store_ps(out + i * kLanes, _mm256_mul_ps(values[i], scale));
      }
    }
  }
};

struct LinearBf16 : LinearSums {
  using Matrix = Bf16Matrix;

  static void unpack(const Bf16Matrix& w, int64_t row, int64_t block, int64_t count,
                     Strip& strip) {
    for (int64_t b = 0; b < count; ++b) {
      __m256 values[4];
      widen_bfloat16(row_bits(w, row) + (block + b) * kGroupSize * 2, values);
      float* out = strip.weights + b * kGroupSize;
      for (int64_t i = 0; i < 4; ++i) _mm256_store_ps(out + i * kLanes, values[i]);
    }
  }
};

// scales[g][i] of 32 inputs and up to 8 groups: the file's [input, group] order, transposed.
void expert_scales(const Int4Matrix& w, int64_t input, int64_t group, int64_t groups,
                   float (*scales)[kGroupSize]) {
  const HalfMask mask = half_mask(groups);
  for (int64_t first = 0; first < kGroupSize; first += kLanes) {
    __m256 rows[kLanes];
    for (int64_t i = 0; i < kLanes; ++i) {
      const uint8_t* halves = row_scales(w, input + first + i) + 2 * group;
      rows[i] = _mm256_cvtph_ps(load_halves(halves, mask));
    }
    transpose_8x8(rows);
    for (int64_t g = 0; g < kGroupBatch; ++g) _mm256_store_ps(scales[g] + first, rows[g]);
  }
}

// x * scale for 32 inputs: the activations that one output group sees.
void fold_scales(const float* x, const float* scales, __m256 folded[4]) {
  for (int64_t i = 0; i < 4; ++i) {
    folded[i] = _mm256_mul_ps(_mm256_loadu_ps(x + i * kLanes), _mm256_load_ps(scales + i * kLanes));
  }
}

// What the expert kernels with float activations share: a tile of float weights.
struct ExpertSums {
  struct Tile {
    alignas(32) float weights[kGroupSize][kGroupSize];  // [input, output], without scale
  };

  static void accumulate(const Tile& tile, const float* scales, const float* x, float* y) {
    alignas(32) float folded[kGroupSize];
    __m256 registers[4], sums[4] = {};
    fold_scales(x, scales, registers);
    for (int64_t j = 0; j < 4; ++j) _mm256_store_ps(folded + j * kLanes, registers[j]);
    for (int64_t i = 0; i < kGroupSize; ++i) {
      const __m256 b = _mm256_broadcast_ss(folded + i);
      for (int64_t j = 0; j < 4; ++j) {
        sums[j] = _mm256_fmadd_ps(b, _mm256_load_ps(tile.weights[i] + j * kLanes), sums[j]);
      }
    }
    for (int64_t j = 0; j < 4; ++j) {
      float* out = y + j * kLanes;
      _mm256_storeu_ps(out, _mm256_add_ps(_mm256_loadu_ps(out), sums[j]));
    }
  }

  static void finish(float*) {}
};

struct ExpertFp32 : ExpertSums {
  using Matrix = Int4Matrix;

  static constexpr auto scales = expert_scales;

  static void unpack(const Int4Matrix& w, int64_t input, int64_t group, Tile& tile) {
    for (int64_t i = 0; i < kGroupSize; ++i) {
      __m256 values[4];
      unpack_floats(row_bytes(w, input + i) + group * (kGroupSize / 2), values);
      for (int64_t j = 0; j < 4; ++j) _mm256_store_ps(tile.weights[i] + j * kLanes, values[j]);
    }
  }
};

struct ExpertBf16 : ExpertSums {
  using Matrix = Bf16Matrix;

  static constexpr auto scales = unit_scales;

  static void unpack(const Bf16Matrix& w, int64_t input, int64_t group, Tile& tile) {
    for (int64_t i = 0; i < kGroupSize; ++i) {
      __m256 values[4];
      widen_bfloat16(row_bits(w, input + i) + group * kGroupSize * 2, values);
      for (int64_t j = 0; j < 4; ++j) _mm256_store_ps(tile.weights[i] + j * kLanes, values[j]);
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
    const __m256 g = load_floats(gate + i, count), u = load_floats(up + i, count);
    const __m256 exponential = exp_lanes(_mm256_sub_ps(_mm256_setzero_ps(), g));
    const __m256 silu = _mm256_div_ps(g, _mm256_add_ps(_mm256_set1_ps(1.0f), exponential));
    store_floats(_mm256_mul_ps(silu, u), count, out + i);
  }
}

void widen_fp16(const uint16_t* halves, int64_t width, float* out) {
  for (int64_t i = 0; i < width; i += kLanes) {
    const int64_t count = smaller(kLanes, width - i);
    const __m128i some = load_halves(reinterpret_cast<const uint8_t*>(halves + i),
                                     half_mask(count));
    store_floats(_mm256_cvtph_ps(some), count, out + i);
  }
}

float dot(const float* a, const float* b, int64_t width) {
  __m256 sums[2] = {};
  int64_t i = 0;
  for (; i + 2 * kLanes <= width; i += 2 * kLanes) {
    for (int64_t j = 0; j < 2; ++j) {
      sums[j] = _mm256_fmadd_ps(_mm256_loadu_ps(a + i + j * kLanes),
                                _mm256_loadu_ps(b + i + j * kLanes), sums[j]);
    }
  }
  float sum = sum_lanes(_mm256_add_ps(sums[0], sums[1]));
  for (; i < width; ++i) sum += a[i] * b[i];
  return sum;
}

void attention_scores(const float* q, const float* k, int64_t positions, int64_t d, float factor,
                      float* scores) {
  for (int64_t n = 0; n < positions; ++n) scores[n] = factor * dot(q, k + n * d, d);
}

// out[0 .. 8 * Registers] for consecutive columns from `v` on.
template <int Registers>
void weighted_columns(const float* p, const float* v, int64_t positions, int64_t d, float* out) {
  __m256 sums[Registers] = {};
  for (int64_t n = 0; n < positions; ++n) {
    const __m256 weight = _mm256_broadcast_ss(p + n);
    for (int64_t j = 0; j < Registers; ++j) {
      sums[j] = _mm256_fmadd_ps(weight, _mm256_loadu_ps(v + n * d + j * kLanes), sums[j]);
    }
  }
  for (int64_t j = 0; j < Registers; ++j) _mm256_storeu_ps(out + j * kLanes, sums[j]);
}

void attention_values(const float* p, const float* v, int64_t positions, int64_t d, float* out) {
  int64_t i = 0;
  for (; i + 8 * kLanes <= d; i += 8 * kLanes) weighted_columns<8>(p, v + i, positions, d, out + i);
  for (; i + kLanes <= d; i += kLanes) weighted_columns<1>(p, v + i, positions, d, out + i);
  for (; i < d; ++i) {
    float sum = 0.0f;
    for (int64_t n = 0; n < positions; ++n) sum += p[n] * v[n * d + i];
    out[i] = sum;
  }
}

}  // namespace

const Kernels kAvx2Kernels = {
    .name = "avx2",
    .quantize_row = quantize_row,
    .linear_fp32 = linear_floats<LinearFp32>,
    .linear_int8 = linear_int8,
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
