// The weights of a stack.
#include "stack.h"

namespace mobilemoe::check {
namespace {

constexpr float kLargeBias = 4.0f;  // a score is at most 1

struct Maker {
  Random& random;
  const Config& config;
  WeightFormat format;
  RandomLayers& out;

  WeightMatrix matrix(int64_t rows, int64_t columns) {
    if (format == WeightFormat::kBf16) {
      return out.bf16.emplace_back(random_bf16(random, rows, columns)).matrix;
    }
    return out.int4.emplace_back(random_int4(random, rows, columns)).matrix;
  }

  std::vector<float> floats(int64_t count, float low, float high) {
    std::vector<float> values(static_cast<size_t>(count));
    for (float& value : values) value = uniform(random, low, high);
    return values;
  }

  std::vector<float> biases(Routing routing) {
    std::vector<float> bias_E = floats(config.num_local_experts, -0.1f, 0.1f);
    if (routing == Routing::kNoNumbers) {
      bias_E.assign(bias_E.size(), poison_float(Poison::kNan));
    } else if (routing == Routing::kSameExperts) {
      for (int64_t k = 0; k < config.num_experts_per_tok;) {
        float& bias = random.pick(bias_E);
        if (bias >= 1.0f) continue;
        bias = kLargeBias + static_cast<float>(k++);
      }
    }
    return bias_E;
  }

  MoeWeights moe(Routing routing) {
    const int64_t D = config.hidden_size, F = config.intermediate_size;
    MoeWeights made;
    made.router_ED = floats(config.num_local_experts * D, -0.4f, 0.4f);
    made.expert_bias_E = biases(routing);
    for (int64_t e = 0; e < config.num_local_experts; ++e) {
      made.gate_up_E.push_back(matrix(D, 2 * F));
      made.down_E.push_back(matrix(F, D));
    }
    return made;
  }

  LayerWeights layer(int64_t index, Routing routing) {
    const int64_t D = config.hidden_size, S = config.intermediate_size_mlp;
    LayerWeights made;
    made.input_norm_D = floats(D, 0.5f, 1.5f);
    made.post_attention_norm_D = floats(D, 0.5f, 1.5f);
    made.q = matrix(config.query_width(), D);
    made.k = matrix(config.kv_width(), D);
    made.v = matrix(config.kv_width(), D);
    made.o = matrix(D, config.query_width());
    made.is_moe = config.is_moe_layer(index);
    if (made.is_moe) made.moe = moe(routing);
    if (S > 0) made.swiglu = {matrix(S, D), matrix(S, D), matrix(D, S)};
    return made;
  }
};

}  // namespace

RandomLayers random_layers(Random& random, const Config& config, WeightFormat format,
                           Routing routing) {
  RandomLayers out;
  Maker maker{random, config, format, out};
  for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
    out.layers.push_back(maker.layer(i, routing));
  }
  return out;
}

void poison_layers(Random& random, Poison poison, RandomLayers& weights) {
  LayerWeights& layer = random.pick(weights.layers);
  if (!weights.int4.empty() && random.one_in(2)) {
    Int4Data& w = random.pick(weights.int4);
    const auto rows = static_cast<size_t>(w.matrix.rows);
    const auto groups = static_cast<size_t>(w.matrix.columns / kGroupSize);
    w.set_scale(static_cast<int64_t>(random.below(rows)),
                static_cast<int64_t>(random.below(groups)), poison_half(poison));
  } else if (layer.is_moe) {
    poison_one(random, poison,
               random.one_in(2) ? layer.moe.router_ED : layer.moe.expert_bias_E);
  } else {
    poison_one(random, poison,
               random.one_in(2) ? layer.input_norm_D : layer.post_attention_norm_D);
  }
}

}  // namespace mobilemoe::check
