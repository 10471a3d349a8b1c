// What a model is; mirrors mobilemoe.config.ModelConfig (same names, already validated there).
#pragma once

#include <cstdint>

namespace mobilemoe {

// Weights per INT4 scale, activations per int8 scale, and the step of every kernel.
constexpr int64_t kGroupSize = 32;

// Far above any model: it bounds what is listed before a file is read.
constexpr int64_t kMaxLayers = 1024;

struct Config {
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;      // width of a routed expert
  int64_t intermediate_size_mlp = 0;  // width of the shared expert, or of a dense layer
  int64_t num_hidden_layers = 0;
  int64_t num_attention_heads = 0;
  int64_t num_key_value_heads = 0;
  int64_t head_dim = 0;
  int64_t num_local_experts = 0;  // 0: dense model
  int64_t num_experts_per_tok = 0;
  int64_t interleave_moe_layer_step = 1;
  int64_t max_position_embeddings = 0;
  double rms_norm_eps = 1e-5;
  double rope_theta = 0;
  double rope_scaling_factor = 1;  // 1: plain RoPE
  int64_t rope_original_max_position_embeddings = 0;
  double routed_scaling_factor = 1;
  bool tie_word_embeddings = true;  // the embedding is the output head

  bool is_moe_layer(int64_t layer) const {
    return num_local_experts > 0 && (layer + 1) % interleave_moe_layer_step == 0;
  }
  int64_t query_width() const { return num_attention_heads * head_dim; }
  int64_t kv_width() const { return num_key_value_heads * head_dim; }
};

// Throws InvalidArgument for shapes that the engine cannot run; afterwards products of two
// fields fit in int64_t.
void check_config(const Config& config);

}  // namespace mobilemoe
