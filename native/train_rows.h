// What training does with rows besides products: choosing experts, sorting choices by expert,
// summing a token's choices, and SwiGLU outside of the experts. Mirrors route, dispatch, combine
// and SwiGLU of src/mobilemoe/model/moe.py.
//
// T tokens, E experts, K choices of a token, N computed choices, D row width. `slots_TK` says
// where a choice's row lies, -1 if it was dropped. Every element is computed by one thread in one
// order: the bits do not depend on their number.
#pragma once

#include <cstdint>

#include "train_crew.h"
#include "train_gemm.h"

namespace mobilemoe {

// The K largest of each row, in descending order; ties go to the lower index, and a NaN is larger
// than every number. 1 <= K <= E.
void choose_experts(const Crew& crew, const float* scores_TE, int64_t tokens, int64_t experts,
                    int64_t k, int64_t* ids_TK);

// The positions of `count` expert ids, sorted by id and then by position. Each id is 0 to E - 1.
void sort_by_expert(const int64_t* ids, int64_t count, int64_t experts, int64_t* order);

// y[t] = sum_k w[t, k] x[slots[t, k]], in ascending k; all weights are 1 if `weights_TK` is null.
struct Combine {
  int64_t tokens, k, width;
  const float* x_ND;
  const int64_t* slots_TK;  // each -1 to N - 1
  const float* weights_TK;
};
void combine_rows(const Crew& crew, const Combine& combine, float* y_TD);

// The gradients from that of y: of x, whose every row is the slot of exactly one choice, and of w
// (0 for a dropped choice). The weights may not be null.
void combine_rows_gradient(const Crew& crew, const Combine& combine, const float* grad_y_TD,
                           float* grad_x_ND, float* grad_weights_TK);

// a = silu(gate) * up, element by element, and the gradients of gate and up from that of a.
struct SwigluGradient {
  int64_t count;
  const float* gate;
  const float* up;
  const float* grad_a;
  float* grad_gate;
  float* grad_up;
};
void swiglu(const Crew& crew, const GemmKernels& kernels, int64_t count, const float* gate,
            const float* up, float* a);
void swiglu_gradient(const Crew& crew, const GemmKernels& kernels, const SwigluGradient& arrays);


// Row by row: the loss -log softmax(logits)[target], whose gradient takes the logits' place.
struct CrossEntropy {
  int64_t rows, width;        // V
  const int64_t* targets_N;  // each 0 to V - 1
  float* logits_NV;
  float* losses_N;
};
void cross_entropy_rows(const Crew& crew, const GemmKernels& kernels, const CrossEntropy& rows);

}  // namespace mobilemoe
