#include "train_tasks.h"

#include <algorithm>
#include <cstring>

namespace mobilemoe {
namespace {

constexpr int64_t kLine = 64 / sizeof(float);  // vectors that cross a line of the cache are slow

int64_t whole_lines(int64_t floats) { return (floats + kLine - 1) / kLine * kLine; }

}  // namespace

std::vector<RowTask> row_tasks(std::span<const int64_t> counts) {
  std::vector<RowTask> tasks;
  int64_t begin = 0;
  for (int64_t expert = 0; expert < static_cast<int64_t>(counts.size()); ++expert) {
    const int64_t end = begin + counts[static_cast<size_t>(expert)];
    for (; begin < end; begin += kRowBlock) {
      tasks.push_back({expert, begin, std::min(begin + kRowBlock, end)});
    }
    begin = end;
  }
  std::stable_sort(tasks.begin(), tasks.end(), [](const RowTask& a, const RowTask& b) {
    return a.end - a.begin > b.end - b.begin;
  });
  return tasks;
}

std::vector<OuterTask> outer_tasks(std::span<const int64_t> counts,
                                   std::span<const int64_t> inputs) {
  std::vector<OuterTask> tasks;
  int64_t begin = 0;
  for (int64_t expert = 0; expert < static_cast<int64_t>(counts.size()); ++expert) {
    const int64_t end = begin + counts[static_cast<size_t>(expert)];
    for (int64_t which = 0; which < static_cast<int64_t>(inputs.size()); ++which) {
      const int64_t rows = inputs[static_cast<size_t>(which)];
      for (int64_t first = 0; first < rows; first += kOuterBlock) {
        const int64_t last = std::min(first + kOuterBlock, rows);
        tasks.push_back({which, expert, begin, end, first, last});
      }
    }
    begin = end;
  }
  std::stable_sort(tasks.begin(), tasks.end(), [](const OuterTask& a, const OuterTask& b) {
    return a.end - a.begin > b.end - b.begin;
  });
  return tasks;
}

Workspace::Workspace(const GemmKernels& kernels, int64_t columns, int64_t floats)
    : kernels_(&kernels),
      memory_(static_cast<size_t>(whole_lines(packed_size(kernels, kDepthBlock, columns)) +
                                  floats + kLine)),
      rows_(static_cast<size_t>(std::max(kRowBlock, kOuterBlock))) {
  const auto address = reinterpret_cast<uintptr_t>(memory_.data());
  packed_ = memory_.data() + (64 - address % 64) % 64 / sizeof(float);
  floats_ = packed_ + whole_lines(packed_size(kernels, kDepthBlock, columns));
}

void Workspace::multiply(const float* x, int64_t rows, int64_t inputs, const float* w,
                         bool transposed, int64_t outputs, float* y) {
  for (int64_t k = 0; k < inputs; k += kDepthBlock) {
    const int64_t depth = std::min(kDepthBlock, inputs - k);
    for (int64_t r = 0; r < rows; ++r) rows_[static_cast<size_t>(r)] = x + r * inputs + k;
    const PackedRight right =
        transposed ? pack_right_transposed(*kernels_, w + k, inputs, depth, outputs, packed_)
                   : pack_right(*kernels_, w + k * outputs, outputs, depth, outputs, packed_);
    kernels_->multiply({rows_.data(), rows, 1}, right, y, outputs, k > 0);
  }
}

void Workspace::outer(const OuterTask& task, const float* x, int64_t inputs, const float* y,
                      int64_t outputs, float* w) {
  const int64_t count = task.last - task.first;
  float* to = w + task.first * outputs;
  if (task.begin == task.end) std::fill(to, to + count * outputs, 0.0f);
  for (int64_t k = task.begin; k < task.end; k += kDepthBlock) {
    const int64_t depth = std::min(kDepthBlock, task.end - k);
    const float* corner = x + k * inputs + task.first;
    for (int64_t r = 0; r < count; ++r) rows_[static_cast<size_t>(r)] = corner + r;
    const PackedRight right =
        pack_right(*kernels_, y + k * outputs, outputs, depth, outputs, packed_);
    kernels_->multiply({rows_.data(), count, inputs}, right, to, outputs, k > task.begin);
  }
}

}  // namespace mobilemoe
