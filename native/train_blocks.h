// The products of attention in training: blocks of queries with packed keys or values.
//
// T tokens, d head dim. Every block begins at a multiple of kQueryBlock.
#pragma once

#include <cstdint>
#include <new>
#include <vector>

#include "train_gemm.h"

namespace mobilemoe {

// A multiple of every panel's width, so that a packed matrix may end behind any whole block.
constexpr int64_t kQueryBlock = 64;

// Memory that begins with a line of the cache: vectors that cross one are slow.
template <class T>
struct LineAllocator {
  using value_type = T;
  static constexpr std::align_val_t kLine{64};

  LineAllocator() = default;
  template <class Other>
  LineAllocator(const LineAllocator<Other>&) {}
  T* allocate(size_t count) { return static_cast<T*>(::operator new(count * sizeof(T), kLine)); }
  void deallocate(T* memory, size_t) { ::operator delete(memory, kLine); }
  bool operator==(const LineAllocator&) const = default;
};
using Floats = std::vector<float, LineAllocator<float>>;

// Queries [begin, end), which see the first `keys` keys or some of them.
struct Block {
  int64_t begin, end, keys;

  int64_t count() const { return end - begin; }
};

// Keys or values [T, d] of one head as the right side of products.
class PackedKeys {
 public:
  PackedKeys(const GemmKernels& kernels, int64_t tokens, int64_t d);

  // x^T [d, T], for products with every token.
  void pack_columns(const float* x_Td);
  // x itself, kQueryBlock tokens after the other, for sums over tokens.
  void pack_rows(const float* x_Td);
  const float* values() const { return values_.data(); }

 private:
  const GemmKernels* kernels_;
  int64_t tokens_, d_;
  Floats values_;
};

// One thread's memory for a block.
class Blocks {
 public:
  Blocks(const GemmKernels& kernels, int64_t tokens, int64_t d);

  int64_t count() const { return (tokens_ + kQueryBlock - 1) / kQueryBlock; }
  Block at(int64_t index) const;
  int64_t d() const { return d_; }
  // Between rows of `scores` and of `gradients`, [kQueryBlock, T] each.
  int64_t stride() const { return stride_; }
  float* scores() { return scores_.data(); }
  float* gradients() { return gradients_.data(); }

  // `count` rows that lie `stride` apart as a left side; valid until the next call.
  LeftRows rows(const float* x, int64_t stride, int64_t count, int64_t step = 1) const;
  void multiply(const LeftRows& left, const PackedRight& right, float* c, int64_t c_stride,
                bool add) const;
  // c [queries, d] = sum over the block's keys of p times their packed rows.
  void sum_over_keys(const float* p, const Block& block, const float* packed, float* c,
                     int64_t c_stride) const;
  // c [keys, d] += sum over the block's queries of p times their rows of x.
  void add_over_queries(const float* p, const Block& block, const float* x, int64_t x_stride,
                        float* c_Td);

 private:
  const GemmKernels* kernels_;
  int64_t tokens_, d_, stride_;
  Floats scores_, gradients_, packed_;
  mutable std::vector<const float*> rows_;
};

}  // namespace mobilemoe
