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

ModelParts::ModelParts(const Model& model, ActivationFormat format, int64_t tokens,
                       int64_t context)
    : model_(model),
      head_input_(checked_format(model, format), tokens, model.config().hidden_size),
      attention_(model.config(), format, tokens, context, model.pool().threads()),
      feed_forward_(model.config(), format, tokens),
      h_TD_(static_cast<size_t>(tokens * model.config().hidden_size)) {}

void ModelParts::set_positions(int64_t first, int64_t tokens) {
  tokens_ = tokens;
  attention_.set_positions(first, tokens);
}

void ModelParts::attention(int64_t layer, const float* x_TD, KvCache& cache, int64_t cache_layer,
                           float* y_TD) {
  const LayerWeights& weights = model_.weights().layers[static_cast<size_t>(layer)];
  normalise(weights.input_norm_D, x_TD, tokens_);
  attention_.forward(model_.pool(), model_.kernels(), weights, cache_layer, h_TD_.data(), cache,
                     y_TD);
}

void ModelParts::feed_forward(int64_t layer, const float* x_TD, int64_t tokens, float* y_TD) {
  const LayerWeights& weights = model_.weights().layers[static_cast<size_t>(layer)];
  normalise(weights.post_attention_norm_D, x_TD, tokens);
  feed_forward_.forward(model_.pool(), model_.kernels(), weights, model_.residency(), layer,
                        h_TD_.data(), tokens, y_TD);
}

void ModelParts::head(const float* x_TD, int64_t tokens, float* logits_TV) {
  normalise(model_.weights().final_norm_D, x_TD, tokens);
  const Activations h = head_input_.prepare(model_.pool(), model_.kernels(), h_TD_.data(), tokens,
                                            model_.config().hidden_size);
  const Product product[] = {LinearProduct{&model_.weights().head_VD, &h, logits_TV}};
  run_products(model_.pool(), model_.kernels(), product);
}

void ModelParts::normalise(const std::vector<float>& weight_D, const float* x_TD,
                           int64_t tokens) {
  const int64_t D = model_.config().hidden_size;
  model_.pool().for_tokens(tokens, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      rms_norm(x_TD + t * D, weight_D.data(), model_.config().rms_norm_eps, D,
               h_TD_.data() + t * D);
    }
  });
}

}  // namespace mobilemoe
