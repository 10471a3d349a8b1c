#include "config.h"

#include <string>

#include "errors.h"

namespace mobilemoe {
namespace {

void require(bool condition, const std::string& name, int64_t value, const std::string& allowed) {
  if (condition) return;
  throw InvalidArgument(name + " is " + std::to_string(value) + "; allowed: " + allowed);
}

void require_size(const std::string& name, int64_t value, int64_t low, int64_t high = 2147483647) {
  require(value >= low && value <= high, name, value,
          std::to_string(low) + " to " + std::to_string(high));
}

void check_sizes(const Config& config) {
  require_size("vocab_size", config.vocab_size, 1);
  require_size("hidden_size", config.hidden_size, 1);
  require_size("intermediate_size", config.intermediate_size, 0);
  require_size("intermediate_size_mlp", config.intermediate_size_mlp, 0);
  require_size("num_hidden_layers", config.num_hidden_layers, 1, kMaxLayers);
  require_size("num_attention_heads", config.num_attention_heads, 1);
  require_size("num_key_value_heads", config.num_key_value_heads, 1);
  require_size("head_dim", config.head_dim, 2);
  require_size("num_local_experts", config.num_local_experts, 0);
  require_size("num_experts_per_tok", config.num_experts_per_tok, 0);
  require_size("interleave_moe_layer_step", config.interleave_moe_layer_step, 1);
  require_size("max_position_embeddings", config.max_position_embeddings, 1);
}

void check_multiples(const Config& config) {
  const int64_t H = config.num_attention_heads, G = config.num_key_value_heads;
  require(H % G == 0, "num_attention_heads", H, "a multiple of num_key_value_heads");
  require(config.head_dim % 2 == 0, "head_dim", config.head_dim, "an even number");
  const std::string groups = "a multiple of 32 (INT4 groups)";
  require(config.hidden_size % kGroupSize == 0, "hidden_size", config.hidden_size, groups);
  require(config.intermediate_size % kGroupSize == 0, "intermediate_size",
          config.intermediate_size, groups);
  require(config.intermediate_size_mlp % kGroupSize == 0, "intermediate_size_mlp",
          config.intermediate_size_mlp, groups);
  require(config.query_width() % kGroupSize == 0, "num_attention_heads * head_dim",
          config.query_width(), groups);
}

void check_layers(const Config& config) {
  const int64_t E = config.num_local_experts, K = config.num_experts_per_tok;
  if (E > 0) {
    require(K >= 1 && K <= E, "num_experts_per_tok", K, "1 to num_local_experts");
    require(config.intermediate_size > 0, "intermediate_size", config.intermediate_size,
            "a positive width in an MoE model");
    // Without a layer that routes, no tensor of the file would bound E, K and F.
    require(config.interleave_moe_layer_step <= config.num_hidden_layers,
            "interleave_moe_layer_step", config.interleave_moe_layer_step,
            "1 to num_hidden_layers in an MoE model");
  }
  const bool has_dense_layer = E == 0 || config.interleave_moe_layer_step > 1;
  require(!has_dense_layer || config.intermediate_size_mlp > 0, "intermediate_size_mlp",
          config.intermediate_size_mlp, "a positive width for dense layers");
}

}  // namespace

void check_config(const Config& config) {
  check_sizes(config);
  check_multiples(config);
  check_layers(config);
}

}  // namespace mobilemoe
