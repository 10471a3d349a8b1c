// Normalisation of rows in training, forward and backward. Mirrors src/mobilemoe/model/norm.py
// and rope.py. The bits do not depend on the number of threads.
#pragma once

#include <cstdint>

#include "train_crew.h"

namespace mobilemoe {

// y = x * factor * weight with factor = 1 / sqrt(mean(x^2) + eps), row by row.
struct Norm {
  int64_t rows, width;
  const float* x_RD;
  const float* weight_D;
  float* factors_R;  // written forward, read backward
};
void rms_norm_rows(const Crew& crew, const Norm& norm, float eps, float* y_RD);

// The gradients of x and of the weight. May throw std::bad_alloc before it writes anything.
void rms_norm_rows_gradient(const Crew& crew, const Norm& norm, const float* grad_y_RD,
                            float* grad_x_RD, float* grad_weight_D);

// Heads of queries or keys: x [B, T, H, d] is rotated, pairs (2 i, 2 i + 1) of position t by the
// angles of cosines and sines [T, d / 2], and normalised without a weight: y [B, H, T, d].
struct Heads {
  int64_t batch, tokens, heads, d;  // d is even
  const float* x_BTHd;
  const float* cosines;
  const float* sines;
  float* factors_BTH;  // written forward, read backward
};
void rotate_heads(const Crew& crew, const Heads& heads, float eps, float* y_BHTd);
void rotate_heads_gradient(const Crew& crew, const Heads& heads, const float* grad_y_BHTd,
                           float* grad_x_BTHd);

}  // namespace mobilemoe
