// Matrix products of one parallel region.
//
// All products of a region are cut into units of 32 outputs, which are spread over the
// threads by their cost. Every output is computed by one thread in one fixed order, so the
// split never shows in the bits.
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
  const Activations* x_TI;
  float* y_TO;
};

// y_SO = x_SI w_IO for the S slots of one expert; x by one pointer per slot.
struct ExpertProduct {
  const WeightMatrix* w_IO;
  ActivationFormat format;
  const float* const* x_S;
  int64_t slots;
  float* y_SO;
};

using Product = std::variant<LinearProduct, ExpertProduct>;

void run_products(ThreadPool& pool, const Kernels& kernels, std::span<const Product> products);

}  // namespace mobilemoe
