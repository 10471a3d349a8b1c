// Causal grouped-query attention over a growing cache; mirrors
// mobilemoe.model.attention.Attention.forward.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "activations.h"
#include "config.h"
#include "kernels.h"
#include "kv_cache.h"
#include "model_weights.h"
#include "products.h"
#include "thread_pool.h"

namespace mobilemoe {

// H query heads, G key-value heads, M = H / G heads of a group, d head dim, T tokens, N cached
// positions.
class Attention {
 public:
  // Room for up to `tokens` tokens at a time and `context` positions.
  Attention(const Config& config, ActivationFormat format, KvFormat kv, int64_t tokens,
            int64_t context, int threads);

  // Computes the rotation for the `tokens` positions from `first` on; used by every layer.
  void set_positions(int64_t first, int64_t tokens);

  // What `forward` reads: the caller prepares every block of it, then passes a barrier.
  ActivationBuffer& input() { return hidden_; }
  // Writes attention(h_TD) to y_TD: each thread the pieces that for_row_pieces(team, tokens,
  // D / 32) gives it. Stores the keys and values at the set positions of the cache's layer
  // `cache_layer`. Run by all threads of the team.
  // `next`: the products that come after, for prefetch_share.
  void forward(const Team& team, const Kernels& kernels, const LayerWeights& layer,
               int64_t cache_layer, const float* h_TD, KvCache& cache, float* y_TD,
               std::span<const Product> next);
  // The products that begin `forward`.
  std::array<Product, 3> first_products(const LayerWeights& layer, const float* h_TD);

 private:
  void rotate(float* x_d, int64_t token) const;
  void add_terms(std::vector<float>& y, int64_t row, int64_t width, int64_t head) const;
  void store(const Team& team, int64_t cache_layer, KvCache& cache);
  void store_query(float* q_d, int64_t token, int64_t head);
  void attend_int8(const Team& team, const Kernels& kernels, int64_t cache_layer,
                   const KvCache& cache);
  void attend_tile(const Kernels& kernels, const Int8Cache& cache, int64_t group, int64_t first,
                   int64_t rows);
  void attend_floats(const Team& team, const Kernels& kernels, int64_t cache_layer,
                     const KvCache& cache);
  void combine(const Team& team, float* y_TD) const;

  Config config_;
  KvFormat kv_;
  int64_t first_ = 0, tokens_ = 0;
  std::vector<double> frequencies_;
  // All four projections read two-term activations: an error here shifts every later position,
  // and in small models a shifted router input picks other experts.
  ActivationBuffer hidden_;
  ActivationBuffer attended_;
  std::vector<float> cos_, sin_;  // [T, d/2]
  std::vector<float> q_THd_, k_TGd_, v_TGd_;  // with room for both terms
  std::vector<float> attended_THd_, out_TD_;
  std::vector<int8_t> q_high_GTMd_, q_low_GTMd_;  // for an int8 cache; see Int8Queries
  std::vector<float> q_scales_GTM_;
  std::vector<std::vector<float>> scratch_;  // per thread, for a cache of floats
};

}  // namespace mobilemoe
