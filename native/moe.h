// The feed-forward part of a layer: route -> dispatch -> experts -> combine, plus SwiGLU.
// Mirrors mobilemoe.model.moe.MoE.forward; mobilemoe.model.naive.naive_moe is the oracle.
//
// One operator, run by all threads of a team: the router and the shared expert's first products
// share a phase, each hidden state is quantised once for all experts, and gate and up of an
// expert are one pass over its weights. Few tokens are spread over the threads by outputs; many
// by experts, where a thread takes a group of slots through gate, up, SwiGLU and down at once.
#pragma once

#include <array>
#include <cstdint>
#include <span>
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
  FeedForward(const Config& config, ActivationFormat format, int64_t tokens, int threads);

  // Prepares the blocks begin to end of row t of h_TD; the caller prepares every block, then
  // passes a barrier, then calls `forward`.
  void prepare(const Kernels& kernels, const float* h_TD, int64_t tokens, int64_t t,
               int64_t begin, int64_t end);
  // Writes the layer's output for the normalised input h_TD, routed plus shared, to y_TD: each
  // thread the pieces that for_row_pieces(team, tokens, D / 32) gives it.
  // `residency`, null without a limit, brings the chosen experts of layer `index` in first.
  // `next`: the products that come after, for prefetch_share.
  void forward(const Team& team, const Kernels& kernels, const LayerWeights& layer,
               ExpertResidency* residency, int64_t index, const float* h_TD, int64_t tokens,
               float* y_TD, std::span<const Product> next);
  // Gate and up of the shared expert or dense layer; only where `layer.swiglu.present()`.
  std::array<Product, 2> first_products(const LayerWeights& layer, const float* h_TD,
                                        int64_t tokens);

  // The choices [T, K] of the last MoE layer that ran, best expert first; then what earlier
  // calls left, as with its logits before the sigmoid [T, E].
  const std::vector<int32_t>& topk_ids_TK() const { return topk_ids_TK_; }
  const float* router_logits_TE() const { return router_logits_TE_.data(); }

 private:
  // Slots of one expert that a thread takes through the whole expert.
  struct Unit {
    int32_t expert, first, count;
  };
  // A thread's room for the inside of an expert.
  struct UnitBuffer {
    std::vector<float> gate_up_NF;  // rows of 2F
    ScaledBuffer activated;
    std::vector<const float*> input_N;
  };

  void router_logits(const Team& team, const Kernels& kernels, const MoeWeights& moe,
                     const float* h_TD, int64_t tokens);
  void choose(const Team& team, const MoeWeights& moe, int64_t tokens);
  void activate_swiglu(const Team& team, const Kernels& kernels, int64_t tokens);
  void dispatch_tokens(const LayerWeights& layer, const float* h_TD, int64_t tokens);
  void add_products(const std::vector<WeightMatrix>& w_E, const ExpertInput& x_N, float* y_N);
  void add_units();
  void experts_by_output(const Team& team, const Kernels& kernels);
  void experts_by_unit(const Team& team, const Kernels& kernels, const MoeWeights& moe);
  void run_unit(const Kernels& kernels, const MoeWeights& moe, const Unit& unit,
                UnitBuffer& buffer);
  void combine(const Team& team, const LayerWeights& layer, int64_t tokens, float* y_TD) const;

  Config config_;
  ActivationFormat format_;
  ActivationBuffer hidden_;     // what the shared expert reads
  ActivationBuffer swiglu_;     // what its down projection reads
  ScaledBuffer scaled_hidden_;  // what the routed experts read
  ScaledBuffer activated_;      // what their down projections read, when spread by outputs
  Dispatch dispatch_;
  std::vector<Product> products_;  // gate and up of the chosen experts, then down
  std::vector<Unit> units_;
  std::vector<UnitBuffer> unit_buffers_;
  std::vector<int32_t> topk_ids_TK_, identity_N_;
  std::vector<float> topk_weights_TK_, router_logits_TE_, router_scores_TE_;
  std::vector<float> gate_up_NF_, down_ND_;  // gate_up rows have 2F floats
  std::vector<const float*> hidden_N_, activated_N_;
  std::vector<float> gate_TS_, up_TS_, swiglu_TD_;
};

}  // namespace mobilemoe
