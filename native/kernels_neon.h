// The NEON kernels; kernels.h has their contracts. Floats and quantisation run on every 64-bit
// ARM. Enter the products of bytes only after a run-time check: of dot products, and for those
// with i8mm in their names of the matrix products of int8 too.
#pragma once

#include "kernels.h"

namespace mobilemoe {

// Up to so many tokens or slots, weights are unpacked for each use; above, once for all of them.
constexpr int64_t kNeonGemvTokens = 4;
constexpr int64_t kNeonGemvSlots = 2;

// `base` with the functions of floats.
Kernels neon_float_table(Kernels base);

void neon_quantize_row(const float* x_I, int64_t width, int8_t* values, float* scales,
                       int32_t* sums, float* rest_I);
void neon_scale_row(const float* x_I, int64_t width, float* values_I, float* scales);

// As linear_int8 and expert_int8 for few tokens.
void neon_linear_gemv(const Int4Matrix& w_OI, const QuantizedRows& x_TI, int64_t tokens,
                      int64_t begin, int64_t end, float* y_TO);
void neon_expert_gemv(const Int4Matrix& w_IO, const ScaledRows& x_TI, const int32_t* rows_S,
                      int64_t slots, int64_t begin, int64_t end, float* y_SO);

void neon_dotprod_linear_int8(const Int4Matrix& w_OI, const QuantizedRows& x_TI, int64_t tokens,
                              int64_t begin, int64_t end, float* y_TO);
void neon_dotprod_expert_int8(const Int4Matrix& w_IO, const ScaledRows& x_TI,
                              const int32_t* rows_S, int64_t slots, int64_t begin, int64_t end,
                              float* y_SO);
void neon_dotprod_attend_int8(const Int8Cache& cache, const Int8Queries& queries,
                              float* const* out_R);

void neon_i8mm_linear_int8(const Int4Matrix& w_OI, const QuantizedRows& x_TI, int64_t tokens,
                           int64_t begin, int64_t end, float* y_TO);
void neon_i8mm_expert_int8(const Int4Matrix& w_IO, const ScaledRows& x_TI, const int32_t* rows_S,
                           int64_t slots, int64_t begin, int64_t end, float* y_SO);

inline Kernels neon_dotprod_table(const Kernels& portable) {
  Kernels base = neon_float_table(portable);
  base.name = "neon-dotprod";
  base.quantize_row = neon_quantize_row;
  base.scale_row = neon_scale_row;
  base.linear_int8 = neon_dotprod_linear_int8;
  base.expert_int8 = neon_dotprod_expert_int8;
  base.attend_int8 = neon_dotprod_attend_int8;
  return base;
}

inline Kernels neon_i8mm_table(const Kernels& portable) {
  Kernels base = neon_dotprod_table(portable);
  base.name = "neon-i8mm";
  base.linear_int8 = neon_i8mm_linear_int8;
  base.expert_int8 = neon_i8mm_expert_int8;
  return base;
}

}  // namespace mobilemoe
