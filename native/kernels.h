// The contract of the inner loops: one table of functions per instruction set.
//
// T tokens, I inputs (reduction axis), O outputs, S slots (tokens of one expert), N cached
// positions, d head dim. All sizes are in elements; I and the columns of an expert are
// multiples of 32. Every function is pure, works for any T or S of at least 1, and gives each
// token (slot) bits that do not depend on the other tokens of the call. Non-finite inputs give
// non-finite outputs and never undefined behaviour.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "weight_formats.h"

namespace mobilemoe {

// Blocks of one token are padded to this many scales and sums (zeros), so that kernels may
// read whole vectors of them.
constexpr int64_t kScalePadding = 8;

// Activations x_TI as int8, in blocks of 32: x = values * scales.
struct QuantizedRows {
  const int8_t* values = nullptr;  // [T, I]; inside a block the 16 even elements come first
  const float* scales = nullptr;   // [T, stride]; largest magnitude / 127, 0 for a zero block
  const int32_t* sums = nullptr;   // [T, stride]; sum of the block's values
  int64_t width = 0;               // I
  int64_t stride = 0;              // I / 32 rounded up to kScalePadding
};

// Activations x_TI for the routed experts: x = values * scales in blocks of 32, with
// |values| <= 127 up to rounding; a block with a NaN or an infinity has values 0 and scale NaN.
struct ScaledRows {
  const float* values = nullptr;  // [T, I]
  const float* scales = nullptr;  // [T, I / 32]
  int64_t width = 0;              // I
};

// Cached positions are stored in blocks of kPositionBlock.
constexpr int64_t kPositionBlock = 64;
constexpr int64_t kKeyLanes = 16;  // positions whose keys lie side by side
// Query rows that one call of attend_int8 takes.
constexpr int64_t kMaxQueryRows = 32;

// Keys and values of one KV head in int8: key = k * key_scales[n], value = v * value_scales[n].
// N is rounded up to kPositionBlock; what lies behind the last position is never used, but read.
struct Int8Cache {
  const int8_t* keys = nullptr;         // [N / 16, d / 4, 16, 4]
  const int8_t* values = nullptr;       // [N / 4, d, 4]
  const float* key_scales = nullptr;    // [N]
  const float* value_scales = nullptr;  // [N]
};

// R query rows in int8 terms: q = (128 high + low) * scales[r], |128 high + low| <= 16256.
// The scale includes the factor of the scores.
struct Int8Queries {
  const int8_t* high = nullptr;          // [R, d]
  const int8_t* low = nullptr;           // [R, d]
  const float* scales = nullptr;         // [R]
  const int64_t* positions = nullptr;    // [R]: row r sees positions 0 to positions[r] - 1
  int64_t rows = 0;                      // R, 1 to kMaxQueryRows
  int64_t d = 0;                         // a multiple of 16, at most 512
};

struct Kernels {
  const char* name;

  // Quantises one row x_I into `values`, `scales`, `sums` as laid out in QuantizedRows.
  // A block with a NaN or an infinity gets values 0 and scale NaN. `rest_I`, unless null, gets
  // what that rounds away: x - value * scale, rounded after each step.
  void (*quantize_row)(const float* x_I, int64_t width, int8_t* values, float* scales,
                       int32_t* sums, float* rest_I);

  // y[t, o] = sum_i w[o, i] * x[t, i] for `begin <= o < end`; w is [O, I], y rows have `w.rows`
  // elements. The group of 32 runs along the reduction axis. The integer kernel computes, block
  // after block, y += float(sum of 32 products) * (weight scale * activation scale), rounding
  // after each step: the same bits in every table.
  void (*linear_fp32)(const Int4Matrix& w_OI, const float* x_TI, int64_t tokens, int64_t begin,
                      int64_t end, float* y_TO);
  void (*linear_int8)(const Int4Matrix& w_OI, const QuantizedRows& x_TI, int64_t tokens,
                      int64_t begin, int64_t end, float* y_TO);
  void (*linear_bf16)(const Bf16Matrix& w_OI, const float* x_TI, int64_t tokens, int64_t begin,
                      int64_t end, float* y_TO);

  // Prepares one row x_I for the integer experts, as laid out in ScaledRows.
  void (*scale_row)(const float* x_I, int64_t width, float* values_I, float* scales);

  // y[s, o] = sum_i x[s][i] * w[i, o] for the columns of groups `begin <= o / 32 < end`; w is
  // [I, O], y rows have `w.columns` elements. The group of INT4 runs along the OUTPUT axis: the
  // scale changes with every input.
  void (*expert_fp32)(const Int4Matrix& w_IO, const float* const* x_S, int64_t slots,
                      int64_t begin, int64_t end, float* y_SO);
  // The same for x[s] = row rows_S[s] of x_TI. The integer kernel folds the weight's scale into
  // the activation. For a block of 32 inputs and a group g, with S = max_i |scale[i, g]|,
  //   b[i] = round_half_even(values[i] * (scale[i, g] * (1 / S))), the product exact: fits int8,
  //   y[o] += float(sum_i b[i] * nibble[i, o]) * (scales * S), block after block,
  // rounding after each step: the same bits in every table.
  void (*expert_int8)(const Int4Matrix& w_IO, const ScaledRows& x_TI, const int32_t* rows_S,
                      int64_t slots, int64_t begin, int64_t end, float* y_SO);
  void (*expert_bf16)(const Bf16Matrix& w_IO, const float* const* x_S, int64_t slots,
                      int64_t begin, int64_t end, float* y_SO);

  // out[i] = silu(gate[i]) * up[i]; `out` may be `gate`.
  void (*silu_multiply)(const float* gate, const float* up, int64_t width, float* out);
  // F16 bits to floats.
  void (*widen_fp16)(const uint16_t* halves, int64_t width, float* out);

  // sum_i a[i] * b[i]
  float (*dot)(const float* a_I, const float* b_I, int64_t width);
  // scores[n] = factor * sum_d q[d] * k[n, d]
  void (*attention_scores)(const float* q_d, const float* k_Nd, int64_t positions, int64_t d,
                           float factor, float* scores_N);
  // out[d] = sum_n p[n] * v[n, d]
  void (*attention_values)(const float* p_N, const float* v_Nd, int64_t positions, int64_t d,
                           float* out_d);

  // out_R[r][d] = softmax(q k^T) v over the positions that row r sees, block after block of
  // kPositionBlock with a running maximum m and sum l (online softmax). In a block
  //   s[n] = (128 high k[n] + low k[n]) * (key_scales[n] * scales[r])
  //   m' = max(m, max_n s[n]), c = exp(m - m'), p[n] = exp(s[n] - m'), l = l c + sum_n p[n]
  //   w[n] = p[n] * value_scales[n], u[n] = round_half_even(w[n] * (16383 / max w))
  //   out = out c + (sum_n u[n] v[n]) * (max w / 16383)
  // and at the end out / l. The sums over k and v are exact integers.
  void (*attend_int8)(const Int8Cache& cache, const Int8Queries& queries, float* const* out_R);
};

extern const Kernels kPortableKernels;
#ifdef MOBILEMOE_AVX2
extern const Kernels kAvx2Kernels;  // AVX2, FMA and F16C; enter only after a run-time check
#endif

// The reference functions, for tables that have none of their own.
void portable_silu_multiply(const float* gate, const float* up, int64_t width, float* out);
void portable_scale_row(const float* x_I, int64_t width, float* values_I, float* scales);
void portable_expert_int8(const Int4Matrix& w_IO, const ScaledRows& x_TI, const int32_t* rows_S,
                          int64_t slots, int64_t begin, int64_t end, float* y_SO);
void portable_attend_int8(const Int8Cache& cache, const Int8Queries& queries, float* const* out_R);

// The table for `name`: "portable", "avx2", "avx2-vnni", "avx512", "neon-dotprod", "neon-i8mm", or
// "auto" for the best one that this CPU runs.
// Throws InvalidArgument for an unknown name and for one that this CPU or build lacks.
const Kernels& choose_kernels(const std::string& name);

// The names of the tables that this CPU runs, best first.
std::vector<std::string> available_kernels();

}  // namespace mobilemoe
