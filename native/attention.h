// Causal grouped-query attention over a growing cache; mirrors
// mobilemoe.model.attention.Attention.forward.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <vector>

#include "activations.h"
#include "config.h"
#include "kernels.h"
#include "model_weights.h"
#include "products.h"
#include "thread_pool.h"

namespace mobilemoe {

// Keys and values of every layer in fp32, [layers, G, context, d]. Memory pages are touched,
// and so paid for, only as the context fills.
class KvCache {
 public:
  // Throws InvalidArgument when the size overflows, std::bad_alloc when there is no memory.
  KvCache(const Config& config, int64_t context);

  float* keys(int64_t layer, int64_t head) { return keys_.get() + offset(layer, head); }
  float* values(int64_t layer, int64_t head) { return values_.get() + offset(layer, head); }

 private:
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };
  using Buffer = std::unique_ptr<float, Free>;

  int64_t offset(int64_t layer, int64_t head) const { return (layer * heads_ + head) * head_size_; }
  static Buffer zeros(size_t floats);

  int64_t heads_, head_size_;
  Buffer keys_, values_;
};

// H query heads, G key-value heads, d head dim, T tokens, N cached positions.
class Attention {
 public:
  // Room for up to `tokens` tokens at a time and `context` positions.
  Attention(const Config& config, ActivationFormat format, int64_t tokens, int64_t context,
            int threads);

  // Computes the rotation for the `tokens` positions from `first` on; used by every layer.
  void set_positions(int64_t first, int64_t tokens);

  // Writes attention(h_TD) to y_TD and stores the keys and values at the set positions of the
  // cache's layer `cache_layer`.
  void forward(ThreadPool& pool, const Kernels& kernels, const LayerWeights& layer,
               int64_t cache_layer, const float* h_TD, KvCache& cache, float* y_TD);

 private:
  void project(ThreadPool& pool, const Kernels& kernels, const LayerWeights& layer,
               const float* h_TD);
  void add_terms(ThreadPool& pool, std::vector<float>& y, int64_t width) const;
  void rotate(float* x_d, int64_t token) const;
  void store(ThreadPool& pool, int64_t cache_layer, KvCache& cache);
  void attend(ThreadPool& pool, const Kernels& kernels, int64_t cache_layer, KvCache& cache);

  Config config_;
  int64_t first_ = 0, tokens_ = 0;
  std::vector<double> frequencies_;
  // Queries, keys and values read two-term activations: an error here shifts every later
  // position, and in small models a shifted router input picks other experts.
  ActivationBuffer hidden_;
  ActivationBuffer attended_;
  std::vector<float> cos_, sin_;  // [T, d/2]
  std::vector<float> q_THd_, k_TGd_, v_TGd_;  // with room for both terms
  std::vector<float> attended_THd_;
  std::vector<std::vector<float>> scores_N_;  // per thread
};

}  // namespace mobilemoe
