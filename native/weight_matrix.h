// A weight matrix of either format. Kernel files include weight_formats.h only.
#pragma once

#include <variant>

#include "weight_formats.h"

namespace mobilemoe {

using WeightMatrix = std::variant<Int4Matrix, Bf16Matrix>;

inline int64_t rows_of(const WeightMatrix& w) {
  return std::visit([](const auto& matrix) { return matrix.rows; }, w);
}

inline int64_t columns_of(const WeightMatrix& w) {
  return std::visit([](const auto& matrix) { return matrix.columns; }, w);
}

}  // namespace mobilemoe
