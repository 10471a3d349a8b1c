// The product of train_gemm.h over any vector type, and the table of an instruction set. Included once per
// instruction set, each time compiled for it: everything here has internal linkage.
//
// A vector type `V` has kLanes, the register type `Register` (a vector of the compiler's, with its
// operators), and zero, load, broadcast, store, add and multiply_add (a b + c).
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "train_gemm.h"
#include "train_lanes.h"

namespace mobilemoe {
namespace {

#define MOBILEMOE_UNROLL _Pragma("GCC unroll 16")

// One tile of the result, all of it in registers.
template <class V, int kRows, int kVectors>
void multiply_tile(const float* const* rows, int64_t step, const float* right, int64_t depth,
                   float* c, int64_t c_stride, bool add) {
  constexpr int64_t kLanes = V::kLanes;
  const float* a[kRows];
  MOBILEMOE_UNROLL
  for (int r = 0; r < kRows; ++r) a[r] = rows[r];
  typename V::Register sums[kRows][kVectors];
  MOBILEMOE_UNROLL
  for (int r = 0; r < kRows; ++r) {
    MOBILEMOE_UNROLL
    for (int v = 0; v < kVectors; ++v) sums[r][v] = V::zero();
  }
  for (int64_t k = 0, at = 0; k < depth; ++k, at += step, right += kVectors * kLanes) {
    typename V::Register b[kVectors];
    MOBILEMOE_UNROLL
    for (int v = 0; v < kVectors; ++v) b[v] = V::load(right + v * kLanes);
    MOBILEMOE_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const typename V::Register x = V::broadcast(a[r][at]);
      MOBILEMOE_UNROLL
      for (int v = 0; v < kVectors; ++v) sums[r][v] = V::multiply_add(x, b[v], sums[r][v]);
    }
  }
  MOBILEMOE_UNROLL
  for (int r = 0; r < kRows; ++r) {
    MOBILEMOE_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      float* to = c + r * c_stride + v * kLanes;
      V::store(to, add ? V::add(V::load(to), sums[r][v]) : sums[r][v]);
    }
  }
}

// The same where the last vector is not full.
template <class V, int kRows, int kVectors>
void multiply_edge(const float* const* rows, int64_t step, const float* right, int64_t depth,
                   float* c, int64_t c_stride, bool add, int64_t columns) {
  constexpr int64_t kWidth = kVectors * V::kLanes;
  alignas(64) float whole[kRows * kWidth];
  multiply_tile<V, kRows, kVectors>(rows, step, right, depth, whole, kWidth, false);
  for (int r = 0; r < kRows; ++r) {
    for (int64_t n = 0; n < columns; ++n) {
      float& to = c[r * c_stride + n];
      to = add ? to + whole[r * kWidth + n] : whole[r * kWidth + n];
    }
  }
}

template <class V, int kRows, int kVectors>
void multiply_strip(const LeftRows& left, int64_t row, const float* right, int64_t depth, float* c,
                    int64_t c_stride, bool add, int64_t columns) {
  const float* const* rows = left.rows + row;
  float* to = c + row * c_stride;
  if (columns == kVectors * V::kLanes) {
    multiply_tile<V, kRows, kVectors>(rows, left.step, right, depth, to, c_stride, add);
  } else {
    multiply_edge<V, kRows, kVectors>(rows, left.step, right, depth, to, c_stride, add, columns);
  }
}

// The rows that are left below the last full strip: kRows or fewer.
template <class V, int kRows, int kVectors, class... Rest>
void multiply_last(int64_t rows, const Rest&... rest) {
  if (rows == kRows) {
    multiply_strip<V, kRows, kVectors>(rest...);
  } else if constexpr (kRows > 1) {
    multiply_last<V, kRows - 1, kVectors>(rows, rest...);
  }
}

template <class V, int kRows, int kVectors>
void multiply_panel(const LeftRows& left, const float* right, int64_t depth, float* c,
                    int64_t c_stride, bool add, int64_t columns) {
  int64_t row = 0;
  for (; row + kRows <= left.count; row += kRows) {
    multiply_strip<V, kRows, kVectors>(left, row, right, depth, c, c_stride, add, columns);
  }
  if (row < left.count) {
    multiply_last<V, kRows, kVectors>(left.count - row, left, row, right, depth, c, c_stride, add,
                                      columns);
  }
}

// A panel of kVectors vectors or fewer: the last one.
template <class V, int kRows, int kVectors, class... Rest>
void multiply_narrow(int64_t vectors, const Rest&... rest) {
  if (vectors == kVectors) {
    multiply_panel<V, kRows, kVectors>(rest...);
  } else if constexpr (kVectors > 1) {
    multiply_narrow<V, kRows, kVectors - 1>(vectors, rest...);
  }
}

template <class V, int kRows, int kVectors>
void multiply(const LeftRows& left, const PackedRight& right, float* c, int64_t c_stride,
              bool add) {
  constexpr int64_t kPanel = kVectors * V::kLanes;
  for (int64_t first = 0; first < right.columns; first += kPanel) {
    const int64_t columns = std::min(kPanel, right.columns - first);
    const int64_t vectors = (columns + V::kLanes - 1) / V::kLanes;
    multiply_narrow<V, kRows, kVectors>(vectors, left, right.values + first * right.depth,
                                        right.depth, c + first, c_stride, add, columns);
  }
}

template <class V, int kRows, int kVectors>
constexpr GemmKernels gemm_table(const char* name) {
  return {name,
          V::kLanes,
          kVectors * V::kLanes,
          multiply<V, kRows, kVectors>,
          swiglu_row<V>,
          swiglu_gradient_row<V>,
          cross_entropy_row<V>,
          softmax_row<V>,
          softmax_gradient_row<V>};
}

}  // namespace
}  // namespace mobilemoe
