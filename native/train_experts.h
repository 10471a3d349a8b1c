// The routed experts of training in float32, forward and backward: rows sorted by expert, each
// expert's rows times its own matrices. Mirrors src/mobilemoe/model/experts.py.
//
// N rows, E experts, D hidden, F expert width, I inputs, O outputs. Expert e owns the counts[e]
// rows after those of the experts before it. Every element of a result is computed by one task
// in one order, so its bits depend neither on the number of threads nor on the loads of other
// experts. Every function here may throw std::bad_alloc, before it has written anything.
#pragma once

#include <cstdint>
#include <span>

#include "train_crew.h"
#include "train_gemm.h"

namespace mobilemoe {

using Counts = std::span<const int64_t>;  // [E], none negative

// y[n] = x[n] w[e]; w is [E, I, O], or [E, O, I] if `transposed`.
struct GroupedProduct {
  int64_t inputs, outputs;
  bool transposed;
  const float* x_NI;
  const float* w;
  float* y_NO;
};
void grouped_product(const Crew& crew, const GemmKernels& kernels, Counts counts,
                     const GroupedProduct& product);

// w[e] = sum of x[n]^T y[n] over the rows of e; zeros where e has none.
struct GroupedOuter {
  int64_t inputs, outputs;
  const float* x_NI;
  const float* y_NO;
  float* w_EIO;
};
void grouped_outer(const Crew& crew, const GemmKernels& kernels, Counts counts,
                   const GroupedOuter& outer);

// h = x G, y = (silu(h[:F]) * h[F:]) Dn
struct ExpertsForward {
  int64_t hidden, width;     // D, F
  const float* x_ND;
  const float* gate_up_EDF;  // [E, D, 2 F]
  const float* down_EFD;
  float* h_NF;  // [N, 2 F], for the backward pass
  float* y_ND;
};
void experts_forward(const Crew& crew, const GemmKernels& kernels, Counts counts,
                     const ExpertsForward& layer);

// The gradients of x, G and Dn from that of y.
struct ExpertsBackward {
  int64_t hidden, width;
  const float* x_ND;
  const float* h_NF;
  const float* gate_up_EDF;
  const float* down_EFD;
  const float* grad_y_ND;
  float* grad_x_ND;
  float* grad_gate_up_EDF;
  float* grad_down_EFD;
};
void experts_backward(const Crew& crew, const GemmKernels& kernels, Counts counts,
                      const ExpertsBackward& layer);

}  // namespace mobilemoe
