// One product y_TO of the table under test against the portable one.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "inputs.h"

namespace mobilemoe::check {

struct ProductCase {
  std::string what;   // for messages
  int64_t tokens;     // T, or slots
  int64_t outputs;    // O
  int64_t unit;       // outputs per step of a range: 1, or 32 for experts
  // Computes `tokens` rows from row `first` on, into y[0 ..], for a range of units.
  std::function<void(const Kernels& table, int64_t first, int64_t tokens, int64_t begin,
                     int64_t end, float* y_TO)>
      call;
  std::vector<double> tolerance_TO;  // of the difference from the portable result; empty: none
};

// Every element, a part of the outputs (the others stay untouched), and each token alone (the
// same bits as among others). Throws Mismatch.
void check_product(const Kernels& table, const ProductCase& product, Random& random);

// The sum of `terms` float products, in any order and with or without FMA, is off by at most
// this share of the sum of their magnitudes (Higham, Accuracy and Stability, 3.1). Two such sums
// differ by twice that.
double sum_error(int64_t terms);

// sum_i |w| |x|, times what two float sums of those may differ by.
template <class ValueAt>
std::vector<double> product_tolerance(int64_t tokens, int64_t outputs, int64_t inputs,
                                      const ValueAt& weight, const std::vector<float>& x_TI,
                                      const std::vector<int32_t>& rows_T) {
  std::vector<double> tolerance(static_cast<size_t>(tokens * outputs));
  for (int64_t o = 0; o < outputs; ++o) {
    std::vector<double> column(static_cast<size_t>(inputs));
    for (int64_t i = 0; i < inputs; ++i) {
      const double w = weight(i, o);
      column[static_cast<size_t>(i)] = w < 0.0 ? -w : w;
    }
    for (int64_t t = 0; t < tokens; ++t) {
      const float* x = x_TI.data() + rows_T[static_cast<size_t>(t)] * inputs;
      double sum = 0.0;
      for (int64_t i = 0; i < inputs; ++i) {
        const auto value = static_cast<double>(x[i]);
        sum += column[static_cast<size_t>(i)] * (value < 0.0 ? -value : value);
      }
      // Two more roundings: of the scaled weight, and of the partial sums' own sum.
      tolerance[static_cast<size_t>(t * outputs + o)] = 2.0 * sum_error(inputs + 2) * sum;
    }
  }
  return tolerance;
}

}  // namespace mobilemoe::check
