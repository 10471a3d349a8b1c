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

struct Kernels {
  const char* name;

  // Quantises one row x_I into `values`, `scales`, `sums` as laid out in QuantizedRows.
  // A block with a NaN or an infinity gets values 0 and scale NaN.
  void (*quantize_row)(const float* x_I, int64_t width, int8_t* values, float* scales,
                       int32_t* sums);

  // y[t, o] = sum_i w[o, i] * x[t, i] for `begin <= o < end`; w is [O, I], y rows have `w.rows`
  // elements. The group of 32 runs along the reduction axis.
  void (*linear_fp32)(const Int4Matrix& w_OI, const float* x_TI, int64_t tokens, int64_t begin,
                      int64_t end, float* y_TO);
  void (*linear_int8)(const Int4Matrix& w_OI, const QuantizedRows& x_TI, int64_t tokens,
                      int64_t begin, int64_t end, float* y_TO);
  void (*linear_bf16)(const Bf16Matrix& w_OI, const float* x_TI, int64_t tokens, int64_t begin,
                      int64_t end, float* y_TO);

  // y[s, o] = sum_i x[s][i] * w[i, o] for the columns of groups `begin <= o / 32 < end`; w is
  // [I, O], y rows have `w.columns` elements. The group of INT4 runs along the OUTPUT axis, so
  // the integer kernel folds the scale into the activation, b[i] = x[i] * scale[i, group], and
  // quantises b to int8 in blocks of 32 inputs.
  void (*expert_fp32)(const Int4Matrix& w_IO, const float* const* x_S, int64_t slots,
                      int64_t begin, int64_t end, float* y_SO);
  void (*expert_int8)(const Int4Matrix& w_IO, const float* const* x_S, int64_t slots,
                      int64_t begin, int64_t end, float* y_SO);
  void (*expert_bf16)(const Bf16Matrix& w_IO, const float* const* x_S, int64_t slots,
                      int64_t begin, int64_t end, float* y_SO);

  // sum_i a[i] * b[i]
  float (*dot)(const float* a_I, const float* b_I, int64_t width);
  // scores[n] = factor * sum_d q[d] * k[n, d]
  void (*attention_scores)(const float* q_d, const float* k_Nd, int64_t positions, int64_t d,
                           float factor, float* scores_N);
  // out[d] = sum_n p[n] * v[n, d]
  void (*attention_values)(const float* p_N, const float* v_Nd, int64_t positions, int64_t d,
                           float* out_d);
};

extern const Kernels kPortableKernels;
#ifdef MOBILEMOE_AVX2
extern const Kernels kAvx2Kernels;  // AVX2, FMA and F16C; enter only after a run-time check
#endif

// The table for `name`: "portable", "avx2", or "auto" for the best one that this CPU runs.
// Throws InvalidArgument for an unknown name and for one that this CPU or build lacks.
const Kernels& choose_kernels(const std::string& name);

}  // namespace mobilemoe
