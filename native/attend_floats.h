// Attention over a cache of floats: the heads of one group and one token.
#pragma once

#include <cstddef>
#include <cstdint>

#include "config.h"
#include "kernels.h"

namespace mobilemoe {

// M query heads that share keys and values of N positions.
struct FloatQueries {
  const float* q_Md;
  int64_t heads, d, positions;
  float factor;  // of the scores
};

// The floats that `scratch` must hold.
size_t float_scratch(const Config& config, int64_t context);

// out_Md = softmax(factor q k^T) v
void attend_fp32(const Kernels& kernels, const FloatQueries& queries, const float* k_Nd,
                 const float* v_Nd, float* scratch, float* out_Md);
void attend_fp16(const Kernels& kernels, const FloatQueries& queries, const uint16_t* k_Nd,
                 const uint16_t* v_Nd, float* scratch, float* out_Md);

}  // namespace mobilemoe
