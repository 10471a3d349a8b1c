#include "moe.h"

#include <algorithm>
#include <cstddef>

#include "elementwise.h"

namespace mobilemoe {
namespace {

size_t size_of(int64_t a, int64_t b) { return static_cast<size_t>(a) * static_cast<size_t>(b); }

}  // namespace

FeedForward::FeedForward(const Config& config, ActivationFormat format, int64_t tokens)
    : config_(config),
      format_(format),
      hidden_(format, tokens, config.hidden_size),
      activated_(format, tokens, config.intermediate_size_mlp) {
  const int64_t D = config.hidden_size, S = config.intermediate_size_mlp;
  const int64_t slots = tokens * config.num_experts_per_tok;
  topk_weights_TK_.resize(static_cast<size_t>(slots));
  router_logits_TE_.resize(size_of(tokens, config.num_local_experts));
  router_scores_TE_.resize(router_logits_TE_.size());
  gate_up_NF_.resize(size_of(slots, 2 * config.intermediate_size));
  down_ND_.resize(size_of(slots, D));
  gate_TS_.resize(size_of(tokens, S));
  up_TS_.resize(size_of(tokens, S));
  swiglu_TD_.resize(size_of(tokens, D));
}

void FeedForward::forward(ThreadPool& pool, const Kernels& kernels, const LayerWeights& layer,
                          ExpertResidency* residency, int64_t index, const float* h_TD,
                          int64_t tokens, float* y_TD) {
  if (layer.is_moe) {
    route_tokens(pool, kernels, layer.moe, h_TD, tokens);
    dispatch(topk_ids_TK_.data(), tokens, config_.num_experts_per_tok, config_.num_local_experts,
             dispatch_);
    if (residency != nullptr) residency->require(index, topk_ids_TK_);
  }
  gate_up(pool, kernels, layer, h_TD, tokens);
  activate(pool, tokens, layer.is_moe, layer.swiglu.present());
  down(pool, kernels, layer, tokens);
  combine(pool, layer, tokens, y_TD);
}

void FeedForward::route_tokens(ThreadPool& pool, const Kernels& kernels, const MoeWeights& moe,
                               const float* h_TD, int64_t tokens) {
  const int64_t D = config_.hidden_size, E = config_.num_local_experts;
  const int64_t K = config_.num_experts_per_tok;
  topk_ids_TK_.resize(size_of(tokens, K));
  pool.for_tokens(tokens, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      float* logits_E = router_logits_TE_.data() + t * E;
      for (int64_t e = 0; e < E; ++e) {
        logits_E[e] = kernels.dot(moe.router_ED.data() + e * D, h_TD + t * D, D);
      }
      route(logits_E, moe.expert_bias_E.data(), E, K, config_.routed_scaling_factor,
            router_scores_TE_.data() + t * E, topk_ids_TK_.data() + t * K,
            topk_weights_TK_.data() + t * K);
    }
  });
}

// One product per expert that any token chose.
void FeedForward::add_experts(const std::vector<WeightMatrix>& w_E,
                              const std::vector<const float*>& x_N, float* y_N) {
  for (size_t e = 0; e < w_E.size(); ++e) {
    const int32_t first = dispatch_.offsets[e], last = dispatch_.offsets[e + 1];
    if (first == last) continue;
    products_.push_back(ExpertProduct{&w_E[e], format_, x_N.data() + first, last - first,
                                      y_N + first * columns_of(w_E[e])});
  }
}

void FeedForward::gate_up(ThreadPool& pool, const Kernels& kernels, const LayerWeights& layer,
                          const float* h_TD, int64_t tokens) {
  products_.clear();
  Activations h;
  if (layer.is_moe) {
    gate_up_input_N_.clear();
    for (const int32_t t : dispatch_.token) {
      gate_up_input_N_.push_back(h_TD + t * config_.hidden_size);
    }
    add_experts(layer.moe.gate_up_E, gate_up_input_N_, gate_up_NF_.data());
  }
  if (layer.swiglu.present()) {
    h = hidden_.prepare(pool, kernels, h_TD, tokens, config_.hidden_size);
    products_.push_back(LinearProduct{&layer.swiglu.gate, &h, gate_TS_.data()});
    products_.push_back(LinearProduct{&layer.swiglu.up, &h, up_TS_.data()});
  }
  run_products(pool, kernels, products_);
}

// silu(gate) * up, in place of the gate.
void FeedForward::activate(ThreadPool& pool, int64_t tokens, bool moe, bool swiglu) {
  const int64_t F = config_.intermediate_size, S = config_.intermediate_size_mlp;
  const int64_t K = config_.num_experts_per_tok;
  pool.parallel_for(tokens * (K + 1), [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      if (i < tokens * K) {
        float* gate = gate_up_NF_.data() + i * 2 * F;
        if (moe) silu_multiply(gate, gate + F, F, gate);
      } else if (swiglu) {
        float* gate = gate_TS_.data() + (i - tokens * K) * S;
        silu_multiply(gate, up_TS_.data() + (i - tokens * K) * S, S, gate);
      }
    }
  });
}

void FeedForward::down(ThreadPool& pool, const Kernels& kernels, const LayerWeights& layer,
                       int64_t tokens) {
  products_.clear();
  Activations activated;
  if (layer.is_moe) {
    down_input_N_.clear();
    for (size_t slot = 0; slot < dispatch_.token.size(); ++slot) {
      down_input_N_.push_back(gate_up_NF_.data() + slot * size_of(2, config_.intermediate_size));
    }
    add_experts(layer.moe.down_E, down_input_N_, down_ND_.data());
  }
  if (layer.swiglu.present()) {
    activated = activated_.prepare(pool, kernels, gate_TS_.data(), tokens,
                                   config_.intermediate_size_mlp);
    products_.push_back(LinearProduct{&layer.swiglu.down, &activated, swiglu_TD_.data()});
  }
  run_products(pool, kernels, products_);
}

// y = routed + shared; the choices of a token are added best expert first.
void FeedForward::combine(ThreadPool& pool, const LayerWeights& layer, int64_t tokens,
                          float* y_TD) const {
  const int64_t D = config_.hidden_size;
  const int64_t K = layer.is_moe ? config_.num_experts_per_tok : 0;
  pool.for_tokens(tokens, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      float* y_D = y_TD + t * D;
      std::fill(y_D, y_D + D, 0.0f);
      for (int64_t i = t * K; i < (t + 1) * K; ++i) {
        const auto choice = static_cast<size_t>(i);
        const float* expert_D = down_ND_.data() + dispatch_.slot[choice] * D;
        for (int64_t j = 0; j < D; ++j) y_D[j] += topk_weights_TK_[choice] * expert_D[j];
      }
      if (!layer.swiglu.present()) continue;
      const float* swiglu_D = swiglu_TD_.data() + t * D;
      for (int64_t j = 0; j < D; ++j) y_D[j] += swiglu_D[j];
    }
  });
}

}  // namespace mobilemoe
