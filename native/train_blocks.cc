#include "train_blocks.h"

#include <algorithm>

namespace mobilemoe {
namespace {

constexpr int64_t kLine = 64 / sizeof(float);

size_t blocks_of(int64_t tokens) {
  return static_cast<size_t>((tokens + kQueryBlock - 1) / kQueryBlock);
}

}  // namespace

PackedKeys::PackedKeys(const GemmKernels& kernels, int64_t tokens, int64_t d)
    : kernels_(&kernels), tokens_(tokens), d_(d) {
  const size_t rows = blocks_of(tokens) * static_cast<size_t>(packed_size(kernels, kQueryBlock, d));
  values_.resize(std::max(rows, static_cast<size_t>(packed_size(kernels, d, tokens))));
}

void PackedKeys::pack_columns(const float* x_Td) {
  pack_right_transposed(*kernels_, x_Td, d_, d_, tokens_, values_.data());
}

void PackedKeys::pack_rows(const float* x_Td) {
  float* to = values_.data();
  for (int64_t first = 0; first < tokens_; first += kQueryBlock) {
    const int64_t rows = std::min(kQueryBlock, tokens_ - first);
    pack_right(*kernels_, x_Td + first * d_, d_, rows, d_, to);
    to += packed_size(*kernels_, kQueryBlock, d_);
  }
}

// Rows a power of two apart would all fall into a few sets of the cache: one line more.
Blocks::Blocks(const GemmKernels& kernels, int64_t tokens, int64_t d)
    : kernels_(&kernels),
      tokens_(tokens),
      d_(d),
      stride_((tokens + kLine - 1) / kLine * kLine + kLine),
      scores_(static_cast<size_t>(kQueryBlock * stride_)),
      gradients_(scores_.size()),
      packed_(static_cast<size_t>(packed_size(kernels, kQueryBlock, d))),
      rows_(static_cast<size_t>(kQueryBlock)) {}

Block Blocks::at(int64_t index) const {
  const int64_t end = std::min((index + 1) * kQueryBlock, tokens_);
  return {index * kQueryBlock, end, end};
}

LeftRows Blocks::rows(const float* x, int64_t stride, int64_t count, int64_t step) const {
  for (int64_t r = 0; r < count; ++r) rows_[static_cast<size_t>(r)] = x + r * stride;
  return {rows_.data(), count, step};
}

void Blocks::multiply(const LeftRows& left, const PackedRight& right, float* c, int64_t c_stride,
                      bool add) const {
  kernels_->multiply(left, right, c, c_stride, add);
}

void Blocks::sum_over_keys(const float* p, const Block& block, const float* packed, float* c,
                           int64_t c_stride) const {
  for (int64_t first = 0; first < block.keys; first += kQueryBlock) {
    const int64_t depth = std::min(kQueryBlock, block.keys - first);
    multiply(rows(p + first, stride_, block.count()), {packed, depth, d_}, c, c_stride, first > 0);
    packed += packed_size(*kernels_, kQueryBlock, d_);
  }
}

void Blocks::add_over_queries(const float* p, const Block& block, const float* x,
                              int64_t x_stride, float* c_Td) {
  const PackedRight right =
      pack_right(*kernels_, x, x_stride, block.count(), d_, packed_.data());
  for (int64_t first = 0; first < block.keys; first += kQueryBlock) {
    const int64_t count = std::min(kQueryBlock, block.keys - first);
    multiply(rows(p + first, 1, count, stride_), right, c_Td + first * d_, d_, true);
  }
}

}  // namespace mobilemoe
