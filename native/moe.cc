#include "moe.h"

#include <algorithm>
#include <cstddef>
#include <numeric>

namespace mobilemoe {
namespace {

// Up to this many tokens the products of the chosen experts are spread by outputs.
constexpr int64_t kFewTokens = 4;
constexpr int64_t kUnitSlots = 60;

size_t size_of(int64_t a, int64_t b) { return static_cast<size_t>(a) * static_cast<size_t>(b); }

}  // namespace

FeedForward::FeedForward(const Config& config, ActivationFormat format, int64_t tokens,
                         int threads)
    : config_(config),
      format_(format),
      hidden_(format, tokens, config.hidden_size),
      swiglu_(format, tokens, config.intermediate_size_mlp),
      scaled_hidden_(format, tokens, config.hidden_size),
      activated_(format, std::min(tokens, kFewTokens) * config.num_experts_per_tok,
                 config.intermediate_size) {
  const int64_t D = config.hidden_size, F = config.intermediate_size;
  const int64_t S = config.intermediate_size_mlp, E = config.num_local_experts;
  const int64_t K = config.num_experts_per_tok, slots = tokens * K;
  topk_ids_TK_.resize(static_cast<size_t>(slots));
  topk_weights_TK_.resize(static_cast<size_t>(slots));
  router_logits_TE_.resize(size_of(tokens, E));
  router_scores_TE_.resize(router_logits_TE_.size());
  dispatch_.reserve(slots, E);
  products_.reserve(size_of(2, std::min(E, slots)));
  gate_up_NF_.resize(size_of(std::min(tokens, kFewTokens) * K, 2 * F));
  down_ND_.resize(size_of(slots, D));
  hidden_N_.reserve(static_cast<size_t>(slots));
  activated_N_.reserve(static_cast<size_t>(slots));
  identity_N_.resize(static_cast<size_t>(std::max(kUnitSlots, kFewTokens * K)));
  std::iota(identity_N_.begin(), identity_N_.end(), 0);
  gate_TS_.resize(size_of(tokens, S));
  up_TS_.resize(size_of(tokens, S));
  swiglu_TD_.resize(size_of(tokens, D));
  if (E == 0 || tokens <= kFewTokens) return;
  units_.reserve(static_cast<size_t>(E + slots / kUnitSlots));
  for (int thread = 0; thread < threads; ++thread) {
    unit_buffers_.push_back({std::vector<float>(size_of(kUnitSlots, 2 * F)),
                             ScaledBuffer(format, kUnitSlots, F),
                             std::vector<const float*>(static_cast<size_t>(kUnitSlots))});
  }
}

void FeedForward::prepare(const Kernels& kernels, const float* h_TD, int64_t tokens, int64_t t,
                          int64_t begin, int64_t end) {
  if (config_.intermediate_size_mlp > 0) {
    hidden_.prepare(kernels, h_TD, tokens, t, begin, end);
  }
  if (config_.num_local_experts > 0) {
    scaled_hidden_.prepare(kernels, h_TD + t * config_.hidden_size, t, begin, end);
  }
}

void FeedForward::forward(const Team& team, const Kernels& kernels, const LayerWeights& layer,
                          ExpertResidency* residency, int64_t index, const float* h_TD,
                          int64_t tokens, float* y_TD, std::span<const Product> next) {
  const Activations activated = swiglu_.view(gate_TS_.data(), tokens);
  const Product down[] = {LinearProduct{&layer.swiglu.down, activated, swiglu_TD_.data()}};
  if (layer.is_moe) router_logits(team, kernels, layer.moe, h_TD, tokens);
  if (layer.swiglu.present()) multiply(team, kernels, first_products(layer, h_TD, tokens));
  team.barrier(layer.swiglu.present() ? prefetch_share(team, down) : ReadAhead());
  if (layer.is_moe) choose(team, layer.moe, tokens);
  if (layer.swiglu.present()) activate_swiglu(team, kernels, tokens);
  team.barrier();
  if (layer.is_moe) {
    if (team.leads()) {
      dispatch_tokens(layer, h_TD, tokens);
      if (residency != nullptr) {
        const std::span<const int32_t> ids(topk_ids_TK_);
        residency->require(index, ids.first(size_of(tokens, config_.num_experts_per_tok)));
      }
    }
    team.barrier();
    if (tokens <= kFewTokens) {
      experts_by_output(team, kernels);
    } else {
      experts_by_unit(team, kernels, layer.moe);
    }
  }
  if (layer.swiglu.present()) multiply(team, kernels, down);
  team.barrier(prefetch_share(team, next));
  combine(team, layer, tokens, y_TD);
}

std::array<Product, 2> FeedForward::first_products(const LayerWeights& layer, const float* h_TD,
                                                   int64_t tokens) {
  const Activations h = hidden_.view(h_TD, tokens);
  return {LinearProduct{&layer.swiglu.gate, h, gate_TS_.data()},
          LinearProduct{&layer.swiglu.up, h, up_TS_.data()}};
}

void FeedForward::router_logits(const Team& team, const Kernels& kernels, const MoeWeights& moe,
                                const float* h_TD, int64_t tokens) {
  const int64_t D = config_.hidden_size, E = config_.num_local_experts;
  for_row_pieces(team, tokens, E, [&](int64_t t, int64_t begin, int64_t end) {
    for (int64_t e = begin; e < end; ++e) {
      router_logits_TE_[static_cast<size_t>(t * E + e)] =
          kernels.dot(moe.router_ED.data() + e * D, h_TD + t * D, D);
    }
  });
}

void FeedForward::choose(const Team& team, const MoeWeights& moe, int64_t tokens) {
  const int64_t E = config_.num_local_experts, K = config_.num_experts_per_tok;
  const Range share = team.share(tokens);
  for (int64_t t = share.begin; t < share.end; ++t) {
    route(router_logits_TE_.data() + t * E, moe.expert_bias_E.data(), E, K,
          config_.routed_scaling_factor, router_scores_TE_.data() + t * E,
          topk_ids_TK_.data() + t * K, topk_weights_TK_.data() + t * K);
  }
}

// silu(gate) * up in place of the gate, prepared for the down projection.
void FeedForward::activate_swiglu(const Team& team, const Kernels& kernels, int64_t tokens) {
  const int64_t S = config_.intermediate_size_mlp;
  for_row_pieces(team, tokens, swiglu_.blocks(), [&](int64_t t, int64_t begin, int64_t end) {
    float* gate = gate_TS_.data() + t * S + begin * kGroupSize;
    const float* up = up_TS_.data() + t * S + begin * kGroupSize;
    kernels.silu_multiply(gate, up, (end - begin) * kGroupSize, gate);
    swiglu_.prepare(kernels, gate_TS_.data(), tokens, t, begin, end);
  });
}

// Sorts the choices by expert and writes down what is to be computed.
void FeedForward::dispatch_tokens(const LayerWeights& layer, const float* h_TD, int64_t tokens) {
  dispatch(topk_ids_TK_.data(), tokens, config_.num_experts_per_tok, config_.num_local_experts,
           dispatch_);
  if (format_ == ActivationFormat::kFp32) {
    hidden_N_.clear();
    for (const int32_t t : dispatch_.token) hidden_N_.push_back(h_TD + t * config_.hidden_size);
  }
  if (tokens > kFewTokens) {
    add_units();
    return;
  }
  const size_t slots = dispatch_.token.size();
  activated_N_.clear();
  for (size_t slot = 0; slot < slots; ++slot) {
    activated_N_.push_back(gate_up_NF_.data() + slot * size_of(2, config_.intermediate_size));
  }
  products_.clear();
  add_products(layer.moe.gate_up_E,
               {format_, hidden_N_.data(), scaled_hidden_.view(), dispatch_.token.data(), 0},
               gate_up_NF_.data());
  add_products(layer.moe.down_E,
               {format_, activated_N_.data(), activated_.view(), identity_N_.data(), 0},
               down_ND_.data());
}

// One product per expert that any token chose.
void FeedForward::add_products(const std::vector<WeightMatrix>& w_E, const ExpertInput& x_N,
                               float* y_N) {
  for (size_t e = 0; e < w_E.size(); ++e) {
    const int32_t first = dispatch_.offsets[e], last = dispatch_.offsets[e + 1];
    if (first == last) continue;
    ExpertInput x = x_N;
    if (x.format == ActivationFormat::kFp32) x.x_S += first;
    x.rows_S += first;
    x.slots = last - first;
    products_.push_back(ExpertProduct{&w_E[e], x, y_N + first * columns_of(w_E[e])});
  }
}

// The slots of every expert in pieces, the longest first: threads that take them end together.
void FeedForward::add_units() {
  units_.clear();
  for (size_t e = 0; e + 1 < dispatch_.offsets.size(); ++e) {
    const int32_t last = dispatch_.offsets[e + 1];
    for (int32_t first = dispatch_.offsets[e]; first < last; first += kUnitSlots) {
      const int32_t count = std::min(static_cast<int32_t>(kUnitSlots), last - first);
      units_.push_back({static_cast<int32_t>(e), first, count});
    }
  }
  std::sort(units_.begin(), units_.end(), [](const Unit& a, const Unit& b) {
    return a.count != b.count ? a.count > b.count : a.first < b.first;
  });
}

void FeedForward::experts_by_output(const Team& team, const Kernels& kernels) {
  const std::span<const Product> products(products_);
  const std::span<const Product> down = products.last(products_.size() / 2);
  multiply(team, kernels, products.first(products_.size() / 2));
  team.barrier(prefetch_share(team, down));
  const int64_t F = config_.intermediate_size;
  const auto slots = static_cast<int64_t>(dispatch_.token.size());
  for_row_pieces(team, slots, F / kGroupSize, [&](int64_t slot, int64_t begin, int64_t end) {
    float* gate = gate_up_NF_.data() + slot * 2 * F;
    float* piece = gate + begin * kGroupSize;
    kernels.silu_multiply(piece, piece + F, (end - begin) * kGroupSize, piece);
    activated_.prepare(kernels, gate, slot, begin, end);
  });
  team.barrier();
  multiply(team, kernels, down);
}

void FeedForward::experts_by_unit(const Team& team, const Kernels& kernels,
                                  const MoeWeights& moe) {
  UnitBuffer& buffer = unit_buffers_[static_cast<size_t>(team.index())];
  const auto units = static_cast<int64_t>(units_.size());
  for (int64_t i = team.take(); i < units; i = team.take()) {
    run_unit(kernels, moe, units_[static_cast<size_t>(i)], buffer);
  }
}

void FeedForward::run_unit(const Kernels& kernels, const MoeWeights& moe, const Unit& unit,
                           UnitBuffer& buffer) {
  const int64_t F = config_.intermediate_size;
  const auto expert = static_cast<size_t>(unit.expert);
  const float* const* hidden = hidden_N_.empty() ? nullptr : hidden_N_.data() + unit.first;
  const ExpertInput h{format_, hidden, scaled_hidden_.view(),
                      dispatch_.token.data() + unit.first, unit.count};
  multiply(kernels, ExpertProduct{&moe.gate_up_E[expert], h, buffer.gate_up_NF.data()});
  for (int64_t slot = 0; slot < unit.count; ++slot) {
    float* gate = buffer.gate_up_NF.data() + slot * 2 * F;
    kernels.silu_multiply(gate, gate + F, F, gate);
    buffer.activated.prepare(kernels, gate, slot, 0, F / kGroupSize);
    buffer.input_N[static_cast<size_t>(slot)] = gate;
  }
  const ExpertInput activated{format_, buffer.input_N.data(), buffer.activated.view(),
                              identity_N_.data(), unit.count};
  float* out = down_ND_.data() + unit.first * config_.hidden_size;
  multiply(kernels, ExpertProduct{&moe.down_E[expert], activated, out});
}

// y = routed + shared; the choices of a token are added best expert first.
void FeedForward::combine(const Team& team, const LayerWeights& layer, int64_t tokens,
                          float* y_TD) const {
  const int64_t D = config_.hidden_size;
  const int64_t K = layer.is_moe ? config_.num_experts_per_tok : 0;
  for_row_pieces(team, tokens, D / kGroupSize, [&](int64_t t, int64_t first, int64_t last) {
    const int64_t begin = first * kGroupSize, end = last * kGroupSize;
    float* y_D = y_TD + t * D;
    std::fill(y_D + begin, y_D + end, 0.0f);
    for (int64_t i = t * K; i < (t + 1) * K; ++i) {
      const auto choice = static_cast<size_t>(i);
      const float* expert_D = down_ND_.data() + dispatch_.slot[choice] * D;
      const float weight = topk_weights_TK_[choice];
      for (int64_t j = begin; j < end; ++j) y_D[j] += weight * expert_D[j];
    }
    if (!layer.swiglu.present()) return;
    const float* swiglu_D = swiglu_TD_.data() + t * D;
    for (int64_t j = begin; j < end; ++j) y_D[j] += swiglu_D[j];
  });
}

}  // namespace mobilemoe
