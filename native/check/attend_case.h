// One call of attend_int8: random inputs, and the formula of kernels.h in doubles.
#pragma once

#include <vector>

#include "inputs.h"

namespace mobilemoe::check {

struct AttendCase {
  int64_t d, positions;  // positions: of the row that sees most
  std::vector<int8_t> keys, values, high, low;
  std::vector<float> key_scales, value_scales, query_scales;
  std::vector<int64_t> seen;  // [R]

  int64_t rows() const { return static_cast<int64_t>(seen.size()); }
  Int8Cache cache() const;
  // `count` rows from `first` on.
  Int8Queries queries(int64_t first, int64_t count) const;
  // out_R of `count` rows from `first` on, one after the other.
  std::vector<float> run(const Kernels& table, int64_t first, int64_t count) const;
};

// Behind the last position lie NaN and noise, as a cache that was rewound has them.
AttendCase random_attend(Random& random, int64_t d, int64_t positions, int64_t rows);

// One row of the result, and what a float evaluation may be off by.
struct ExactRow {
  std::vector<double> out, tolerance;  // [d]
};

ExactRow exact_row(const AttendCase& c, int64_t row);

}  // namespace mobilemoe::check
