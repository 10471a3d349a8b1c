// The feed-forward part of a layer: route -> dispatch -> experts -> combine, plus SwiGLU.
// Mirrors mobilemoe.model.moe.MoE.forward; mobilemoe.model.naive.naive_moe is the oracle.
#pragma once

#include <cstdint>
#include <vector>

#include "activations.h"
#include "config.h"
#include "kernels.h"
#include "model_weights.h"
#include "products.h"
#include "residency.h"
#include "router.h"
#include "thread_pool.h"

namespace mobilemoe {

// T tokens, D hidden, F routed expert width, S shared (or dense) width, E experts, K top-k,
// N = T K slots: the choices sorted by expert.
class FeedForward {
 public:
  // Room for up to `tokens` tokens at a time.
  FeedForward(const Config& config, ActivationFormat format, int64_t tokens);

  // Writes the layer's output for the normalised input h_TD, routed plus shared, to y_TD.
  // `residency`, null without a limit, brings the chosen experts of layer `index` in first.
  void forward(ThreadPool& pool, const Kernels& kernels, const LayerWeights& layer,
               ExpertResidency* residency, int64_t index, const float* h_TD, int64_t tokens,
               float* y_TD);

  // The choices [T, K] of the last MoE layer that ran, best expert first.
  const std::vector<int32_t>& topk_ids_TK() const { return topk_ids_TK_; }
  // Its logits before the sigmoid; T E of them, then what earlier calls left.
  const float* router_logits_TE() const { return router_logits_TE_.data(); }

 private:
  void route_tokens(ThreadPool& pool, const Kernels& kernels, const MoeWeights& moe,
                    const float* h_TD, int64_t tokens);
  void add_experts(const std::vector<WeightMatrix>& w_E, const std::vector<const float*>& x_N,
                   float* y_N);
  void gate_up(ThreadPool& pool, const Kernels& kernels, const LayerWeights& layer,
               const float* h_TD, int64_t tokens);
  void activate(ThreadPool& pool, int64_t tokens, bool moe, bool swiglu);
  void down(ThreadPool& pool, const Kernels& kernels, const LayerWeights& layer, int64_t tokens);
  void combine(ThreadPool& pool, const LayerWeights& layer, int64_t tokens, float* y_TD) const;

  Config config_;
  ActivationFormat format_;
  ActivationBuffer hidden_, activated_;
  std::vector<Product> products_;
  Dispatch dispatch_;
  std::vector<int32_t> topk_ids_TK_;
  std::vector<float> topk_weights_TK_, router_logits_TE_, router_scores_TE_;
  std::vector<float> gate_up_NF_, down_ND_;          // gate_up rows have 2F floats
  std::vector<const float*> gate_up_input_N_, down_input_N_;
  std::vector<float> gate_TS_, up_TS_, swiglu_TD_;
};

}  // namespace mobilemoe
