// The parts of the forward pass, each with its norm: what Session chains over the layers and
// LayerProbe runs one at a time, so that both compute the same bits.
#pragma once

#include <cstdint>
#include <vector>

#include "activations.h"
#include "attention.h"
#include "moe.h"

namespace mobilemoe {

class Model;

// T tokens, D hidden, V vocabulary. The caller holds the model's lock, and the model outlives
// its parts; an input and an output must not overlap. What takes a team is called by all of its
// threads, in the same order, after a barrier that completes its input.
class ModelParts {
 public:
  // Room for up to `tokens` tokens at a time and `context` positions. Throws InvalidArgument
  // for int8 activations with BF16 weights.
  ModelParts(const Model& model, ActivationFormat format, KvFormat kv, int64_t tokens,
             int64_t context);

  // Where the T tokens of the following calls of `attention` stand.
  void set_positions(int64_t first, int64_t tokens);

  // What the next two write is complete after a barrier, but a thread's own pieces of D / 32
  // blocks (for_row_pieces) are so at once.

  // y_TD = attention(input_layernorm(x_TD)); keys and values go to the cache's `cache_layer`.
  void attention(const Team& team, int64_t layer, const float* x_TD, KvCache& cache,
                 int64_t cache_layer, float* y_TD);
  // y_TD = feed_forward(post_attention_layernorm(x_TD)), routed plus shared.
  void feed_forward(const Team& team, int64_t layer, const float* x_TD, int64_t tokens,
                    float* y_TD);
  // logits_TV = head(final_norm(x_TD)), complete after a barrier.
  void head(const Team& team, const float* x_TD, int64_t tokens, float* logits_TV);

  // The routing of the last MoE layer.
  const FeedForward& routing() const { return feed_forward_; }

 private:
  template <class Prepare>
  void normalise(const Team& team, const std::vector<float>& weight_D, const float* x_TD,
                 int64_t tokens, const Prepare& prepare);

  const Model& model_;
  int64_t tokens_ = 0;  // of the set positions
  ActivationBuffer head_input_;
  Attention attention_;
  FeedForward feed_forward_;
  std::vector<float> h_TD_;
};

}  // namespace mobilemoe
