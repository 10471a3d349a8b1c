// One layer's parts on given inputs, computed exactly as a session computes them.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "engine.h"

namespace mobilemoe {

// T tokens, D hidden, E experts, K top-k, V vocabulary.
class LayerProbe {
 public:
  // A view of T rows of `width` floats.
  struct Rows {
    const float* x_TD;
    int64_t tokens;
    int64_t width;
  };

  struct FeedForwardOutput {
    std::vector<float> y_TD;
    std::vector<float> router_logits_TE;  // before the sigmoid; empty for a dense layer
    std::vector<int32_t> topk_ids_TK;     // best expert first; empty for a dense layer
  };

  // Room for `tokens` rows. Throws InvalidArgument for tokens outside 1 to
  // max_position_embeddings, and for int8 activations with BF16 weights.
  LayerProbe(std::shared_ptr<const Model> model, int64_t tokens, ActivationFormat format,
             KvFormat kv);

  // Each takes the model's lock and throws InvalidArgument for a layer that does not exist, for
  // other rows than 1 to `tokens` of width D, and where Model::lock does.

  // attention(input_layernorm(x)) at the positions 0 to T - 1, causal; not added to x.
  std::vector<float> attention(int64_t layer, const Rows& rows);
  // feed_forward(post_attention_layernorm(x)), routed plus shared; not added to x.
  FeedForwardOutput feed_forward(int64_t layer, const Rows& rows);
  // The logits [T, V]: head(final_norm(x)).
  std::vector<float> head(const Rows& rows);

  const Model& model() const { return *model_; }

 private:
  void check_layer(int64_t layer) const;
  void check_rows(const Rows& rows) const;

  std::shared_ptr<const Model> model_;
  int64_t tokens_;
  KvCache cache_;  // of one layer; every call of `attention` begins anew
  ModelParts parts_;
};

}  // namespace mobilemoe
