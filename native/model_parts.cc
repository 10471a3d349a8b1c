#include "model_parts.h"

#include "elementwise.h"
#include "engine.h"
#include "errors.h"

namespace mobilemoe {
namespace {

ActivationFormat checked_format(const Model& model, ActivationFormat format) {
  const bool bf16 = model.weights().format == WeightFormat::kBf16;
  if (bf16 && format == ActivationFormat::kInt8) {
    throw InvalidArgument("int8 is True; allowed for BF16 weights: False\n"
                          "hint: int8 activations go with INT4 weights");
  }
  return format;
}

}  // namespace

ModelParts::ModelParts(const Model& model, ActivationFormat format, KvFormat kv, int64_t tokens,
                       int64_t context)
    : model_(model),
      head_input_(checked_format(model, format), tokens, model.config().hidden_size),
      attention_(model.config(), format, kv, tokens, context, model.pool().threads()),
      feed_forward_(model.config(), format, tokens, model.pool().threads()),
      h_TD_(static_cast<size_t>(tokens * model.config().hidden_size)) {}

void ModelParts::set_positions(int64_t first, int64_t tokens) {
  tokens_ = tokens;
  attention_.set_positions(first, tokens);
}

void ModelParts::attention(const Team& team, int64_t layer, const float* x_TD, KvCache& cache,
                           int64_t cache_layer, float* y_TD) {
  const LayerWeights& weights = model_.weights().layers[static_cast<size_t>(layer)];
  normalise(team, weights.input_norm_D, x_TD, tokens_, [&](int64_t t, int64_t begin, int64_t end) {
    attention_.input().prepare(model_.kernels(), h_TD_.data(), tokens_, t, begin, end);
  });
  std::array<Product, 2> next;
  if (weights.swiglu.present()) next = feed_forward_.first_products(weights, h_TD_.data(), tokens_);
  attention_.forward(team, model_.kernels(), weights, cache_layer, h_TD_.data(), cache, y_TD,
                     std::span(next).first(weights.swiglu.present() ? next.size() : 0));
}

void ModelParts::feed_forward(const Team& team, int64_t layer, const float* x_TD, int64_t tokens,
                              float* y_TD) {
  const LayerWeights& weights = model_.weights().layers[static_cast<size_t>(layer)];
  normalise(team, weights.post_attention_norm_D, x_TD, tokens,
            [&](int64_t t, int64_t begin, int64_t end) {
              feed_forward_.prepare(model_.kernels(), h_TD_.data(), tokens, t, begin, end);
            });
  const auto after = static_cast<size_t>(layer) + 1;
  std::array<Product, 3> next;
  const bool last = after == model_.weights().layers.size();
  if (!last) next = attention_.first_products(model_.weights().layers[after], h_TD_.data());
  feed_forward_.forward(team, model_.kernels(), weights, model_.residency(), layer, h_TD_.data(),
                        tokens, y_TD, std::span(next).first(last ? 0 : next.size()));
}

void ModelParts::head(const Team& team, const float* x_TD, int64_t tokens, float* logits_TV) {
  normalise(team, model_.weights().final_norm_D, x_TD, tokens,
            [&](int64_t t, int64_t begin, int64_t end) {
              head_input_.prepare(model_.kernels(), h_TD_.data(), tokens, t, begin, end);
            });
  const Activations h = head_input_.view(h_TD_.data(), tokens);
  const Product product[] = {LinearProduct{&model_.weights().head_VD, h, logits_TV}};
  multiply(team, model_.kernels(), product);
}

// h = norm(x), with `prepare(t, begin, end)` for the blocks of what reads it; ends with a barrier.
template <class Prepare>
void ModelParts::normalise(const Team& team, const std::vector<float>& weight_D,
                           const float* x_TD, int64_t tokens, const Prepare& prepare) {
  const int64_t D = model_.config().hidden_size;
  for_row_pieces(team, tokens, D / kGroupSize, [&](int64_t t, int64_t begin, int64_t end) {
    const float* x_D = x_TD + t * D;
    const float factor = rms_factor(x_D, model_.config().rms_norm_eps, D);
    for (int64_t i = begin * kGroupSize; i < end * kGroupSize; ++i) {
      h_TD_[static_cast<size_t>(t * D + i)] = x_D[i] * factor * weight_D[static_cast<size_t>(i)];
    }
    prepare(t, begin, end);
  });
  team.barrier();
}

}  // namespace mobilemoe
