// Matrix products that a team of threads computes together.
//
// All products of a call are cut into units of 32 outputs, which are spread over the threads by
// their cost. Every output is computed by one thread in one fixed order, so the split never
// shows in the bits.
#pragma once

#include <span>
#include <variant>

#include "activations.h"
#include "kernels.h"
#include "thread_pool.h"
#include "weight_matrix.h"

namespace mobilemoe {

// A BF16 matrix goes with fp32 activations only.

// y_TO = x_TI w_OI^T
struct LinearProduct {
  const WeightMatrix* w_OI;
  Activations x_TI;
  float* y_TO;
};

// The S inputs of one expert: one pointer per slot in fp32 format, rows of `scaled` in int8.
struct ExpertInput {
  ActivationFormat format = ActivationFormat::kFp32;
  const float* const* x_S = nullptr;
  ScaledRows scaled;
  const int32_t* rows_S = nullptr;
  int64_t slots = 0;
};

// y_SO = x_SI w_IO
struct ExpertProduct {
  const WeightMatrix* w_IO;
  ExpertInput x_SI;
  float* y_SO;
};

using Product = std::variant<LinearProduct, ExpertProduct>;

// This thread's share of all products; they are complete after a barrier.
void multiply(const Team& team, const Kernels& kernels, std::span<const Product> products);

// Asks the memory for the beginning of this thread's share, which it will multiply next, and
// returns what follows: called before a barrier and the small work after it, so that the memory
// does not idle meanwhile.
ReadAhead prefetch_share(const Team& team, std::span<const Product> products);

// All of one expert's product, on this thread.
void multiply(const Kernels& kernels, const ExpertProduct& product);

}  // namespace mobilemoe
