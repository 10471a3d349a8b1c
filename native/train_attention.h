// Causal attention of training in float32, forward and backward. Mirrors scaled_dot_product_attention
// in src/mobilemoe/model/attention.py.
//
// B batch, H query heads, G heads of keys and values (H is a multiple of G), T tokens, d head dim.
// Queries are cut into blocks, and what a block cannot see is not computed. Every element of a
// result is computed by one task in one order: the bits do not depend on the number of threads.
// Both functions may throw std::bad_alloc, before they have written anything.
#pragma once

#include <cstdint>

#include "train_crew.h"
#include "train_gemm.h"

namespace mobilemoe {

// o[i] = sum over j <= i of softmax_j(scale q[i] k[j]) v[j]; H / G query heads share a k and v.
struct Attention {
  int64_t batch, heads, groups, tokens, d;
  float scale;
  const float* q_BHTd;
  const float* k_BGTd;
  const float* v_BGTd;
};

// Writes the outputs, and log sum exp of each row of scaled scores for the backward pass.
void attend(const Crew& crew, const GemmKernels& kernels, const Attention& attention,
            float* o_BTHd, float* sums_BHT);

struct AttentionGradient {
  const float* grad_o_BTHd;
  const float* sums_BHT;
  float* grad_q_BHTd;
  float* grad_k_BGTd;
  float* grad_v_BGTd;
};
void attend_gradient(const Crew& crew, const GemmKernels& kernels, const Attention& attention,
                     const AttentionGradient& gradient);

}  // namespace mobilemoe
