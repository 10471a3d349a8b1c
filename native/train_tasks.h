// How grouped products are cut into tasks that threads take one by one, and one task's work.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "train_gemm.h"

namespace mobilemoe {

// Rows of a task at most: enough that packing the expert's matrix once more costs little.
constexpr int64_t kRowBlock = 256;
// Rows of a weight gradient that one task computes.
constexpr int64_t kOuterBlock = 96;

// Rows [begin, end) of all rows, which belong to one expert.
struct RowTask {
  int64_t expert, begin, end;
};

// Blocks of every expert's rows. The longest come first, so that threads end at about one time.
std::vector<RowTask> row_tasks(std::span<const int64_t> counts);

// Rows [first, last) of the weight gradient `which` of one expert, whose rows begin at `begin`.
struct OuterTask {
  int64_t which, expert, begin, end, first, last;
};

// All blocks of weight gradients with `inputs[which]` rows; the most work comes first.
std::vector<OuterTask> outer_tasks(std::span<const int64_t> counts,
                                   std::span<const int64_t> inputs);

// One thread's memory: packed matrices, row pointers, and floats for whatever the task likes.
class Workspace {
 public:
  // For products of up to `columns` columns.
  Workspace(const GemmKernels& kernels, int64_t columns, int64_t floats);

  // y [rows, outputs] = x [rows, inputs] w, or x w^T with w [outputs, inputs] if `transposed`;
  // at most kRowBlock rows.
  void multiply(const float* x, int64_t rows, int64_t inputs, const float* w, bool transposed,
                int64_t outputs, float* y);
  // Rows [task.first, task.last) of w [inputs, outputs] = x^T y over the rows of the task.
  void outer(const OuterTask& task, const float* x, int64_t inputs, const float* y,
             int64_t outputs, float* w);

  float* floats() { return floats_; }

 private:
  // The left side x^T of a block of `depth` rows of x.
  LeftRows pack_left(const float* x, int64_t stride, int64_t depth, int64_t count);

  const GemmKernels* kernels_;
  std::vector<float> memory_;
  std::vector<const float*> rows_;
  float* packed_;
  float* left_;
  float* floats_;
};

}  // namespace mobilemoe
