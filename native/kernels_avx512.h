// The AVX-512 VNNI kernels, one file per operator; kernels.h has their contracts. Enter only
// after a run-time check of F, BW, DQ, VL and VNNI.
#pragma once

#include "kernels.h"

namespace mobilemoe {

void avx512_quantize_row(const float* x_I, int64_t width, int8_t* values, float* scales,
                         int32_t* sums, float* rest_I);
void avx512_scale_row(const float* x_I, int64_t width, float* values_I, float* scales);
void avx512_linear_int8(const Int4Matrix& w_OI, const QuantizedRows& x_TI, int64_t tokens,
                        int64_t begin, int64_t end, float* y_TO);
void avx512_expert_int8(const Int4Matrix& w_IO, const ScaledRows& x_TI, const int32_t* rows_S,
                        int64_t slots, int64_t begin, int64_t end, float* y_SO);
void avx512_silu_multiply(const float* gate, const float* up, int64_t width, float* out);
void avx512_attend_int8(const Int8Cache& cache, const Int8Queries& queries, float* const* out_R);

// `base` with these functions in it: floats, of which every such CPU also runs the AVX2 form,
// stay as they are.
inline Kernels avx512_table(Kernels base) {
  base.name = "avx512";
  base.quantize_row = avx512_quantize_row;
  base.scale_row = avx512_scale_row;
  base.linear_int8 = avx512_linear_int8;
  base.expert_int8 = avx512_expert_int8;
  base.silu_multiply = avx512_silu_multiply;
  base.attend_int8 = avx512_attend_int8;
  return base;
}

}  // namespace mobilemoe
