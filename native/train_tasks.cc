#include "train_tasks.h"

#include <algorithm>
#include <cstring>

namespace mobilemoe {
namespace {

constexpr int64_t kLine = 64 / sizeof(float);  // vectors that cross a line of the cache are slow

// Columns of x that lie together in a packed left side: a multiple of a tile's rows on every
// instruction set. Rows of x a power of two apart would fall into a few sets of the cache.
constexpr int64_t kStrip = 12;
constexpr int64_t kLeftFloats = (kOuterBlock + kStrip - 1) / kStrip * kStrip * kDepthBlock;

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
                                  kLeftFloats + floats + kLine)),
      rows_(static_cast<size_t>(std::max(kRowBlock, kOuterBlock))) {
  const auto address = reinterpret_cast<uintptr_t>(memory_.data());
  packed_ = memory_.data() + (64 - address % 64) % 64 / sizeof(float);
  left_ = packed_ + whole_lines(packed_size(kernels, kDepthBlock, columns));
  floats_ = left_ + kLeftFloats;
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

LeftRows Workspace::pack_left(const float* x, int64_t stride, int64_t depth, int64_t count) {
  for (int64_t first = 0; first < count; first += kStrip) {
    const int64_t wanted = std::min(kStrip, count - first);
    float* to = left_ + first * depth;
    for (int64_t r = 0; r < wanted; ++r) rows_[static_cast<size_t>(first + r)] = to + r;
    for (int64_t k = 0; k < depth; ++k, to += kStrip) {
      const float* from = x + k * stride + first;
      if (wanted == kStrip) {
        std::memcpy(to, from, kStrip * sizeof *to);
      } else {
        std::copy(from, from + wanted, to);
      }
    }
  }
  return {rows_.data(), count, kStrip};
}

void Workspace::outer(const OuterTask& task, const float* x, int64_t inputs, const float* y,
                      int64_t outputs, float* w) {
  const int64_t count = task.last - task.first;
  float* to = w + task.first * outputs;
  if (task.begin == task.end) std::fill(to, to + count * outputs, 0.0f);
  for (int64_t k = task.begin; k < task.end; k += kDepthBlock) {
    const int64_t depth = std::min(kDepthBlock, task.end - k);
    const LeftRows left = pack_left(x + k * inputs + task.first, inputs, depth, count);
    const PackedRight right =
        pack_right(*kernels_, y + k * outputs, outputs, depth, outputs, packed_);
    kernels_->multiply(left, right, to, outputs, k > task.begin);
  }
}

}  // namespace mobilemoe
