#include "model_weights.h"

#include "errors.h"
#include "json_cursor.h"

namespace mobilemoe {
namespace {

using Shape = std::vector<int64_t>;

// Hands out the tensors of a file one by one, each checked, and knows what is left over.
class TensorTaker {
 public:
  explicit TensorTaker(const MappedFile& file)
      : path_(file.path()), tensors_(read_safetensors(file)) {
    if (tensors_.contains("model.embed_tokens.weight")) {
      throw ModelFileError(path_ + ": holds unquantised weights; the engine runs INT4",
                           "convert the checkpoint to INT4 first");
    }
  }

  const uint8_t* take(const std::string& name, const std::string& dtype, const Shape& shape) {
    const auto found = tensors_.find(name);
    if (found == tensors_.end()) throw ModelFileError(path_ + ": tensor " + name + " is missing");
    const Tensor& tensor = found->second;
    if (tensor.dtype != dtype || tensor.shape != shape) {
      throw ModelFileError(path_ + ": tensor " + name + " is " + printable(tensor.dtype) + " " +
                               shape_string(tensor.shape) + "; expected " + dtype + " " +
                               shape_string(shape),
                           "does config.json belong to this file?");
    }
    const uint8_t* data = tensor.data;
    tensors_.erase(found);
    return data;
  }

  void check_nothing_left() const {
    if (tensors_.empty()) return;
    throw ModelFileError(path_ + ": tensor " + printable(tensors_.begin()->first) +
                             " is unknown (" + std::to_string(tensors_.size()) + " such tensors)",
                         "does config.json belong to this file?");
  }

 private:
  std::string path_;
  TensorMap tensors_;
};

std::vector<float> take_bfloat16(TensorTaker& file, const std::string& name, int64_t size) {
  const uint8_t* data = file.take(name, "BF16", {size});
  std::vector<float> values(static_cast<size_t>(size));
  for (int64_t i = 0; i < size; ++i) values[static_cast<size_t>(i)] = bfloat16_at(data, i);
  return values;
}

Int4Matrix take_matrix(TensorTaker& file, const std::string& name, int64_t rows, int64_t columns) {
  return {file.take(name + ".qweight", "U8", {rows, columns / 2}),
          file.take(name + ".weight_scale", "F16", {rows, columns / kGroupSize}), rows, columns};
}

// One view per expert of the tensors `name`_qweight and `name`_scale, [E, rows, columns].
std::vector<Int4Matrix> take_experts(TensorTaker& file, const std::string& name, int64_t experts,
                                     int64_t rows, int64_t columns) {
  const uint8_t* qweight = file.take(name + "_qweight", "U8", {experts, rows, columns / 2});
  const uint8_t* scale =
      file.take(name + "_scale", "F16", {experts, rows, columns / kGroupSize});
  std::vector<Int4Matrix> matrices;
  for (int64_t e = 0; e < experts; ++e) {
    matrices.push_back({qweight + e * rows * (columns / 2),
                        scale + e * rows * (columns / kGroupSize) * 2, rows, columns});
  }
  return matrices;
}

SwiGluWeights take_swiglu(TensorTaker& file, const std::string& prefix, const Config& config) {
  const int64_t D = config.hidden_size, S = config.intermediate_size_mlp;
  return {take_matrix(file, prefix + ".gate_proj", S, D),
          take_matrix(file, prefix + ".up_proj", S, D),
          take_matrix(file, prefix + ".down_proj", D, S)};
}

MoeWeights take_moe(TensorTaker& file, const std::string& prefix, const Config& config) {
  const int64_t D = config.hidden_size, F = config.intermediate_size, E = config.num_local_experts;
  MoeWeights moe;
  const uint8_t* router = file.take(prefix + ".router.weight", "F32", {E, D});
  moe.router_ED.resize(static_cast<size_t>(E * D));
  std::memcpy(moe.router_ED.data(), router, moe.router_ED.size() * sizeof(float));
  moe.expert_bias_E = take_bfloat16(file, prefix + ".expert_bias", E);
  moe.gate_up_E = take_experts(file, prefix + ".experts.gate_up", E, D, 2 * F);
  moe.down_E = take_experts(file, prefix + ".experts.down", E, F, D);
  return moe;
}

void take_attention(TensorTaker& file, const std::string& prefix, const Config& config,
                    LayerWeights& layer) {
  const int64_t D = config.hidden_size;
  layer.q = take_matrix(file, prefix + ".q_proj", config.query_width(), D);
  layer.k = take_matrix(file, prefix + ".k_proj", config.kv_width(), D);
  layer.v = take_matrix(file, prefix + ".v_proj", config.kv_width(), D);
  layer.o = take_matrix(file, prefix + ".o_proj", D, config.query_width());
}

LayerWeights take_layer(TensorTaker& file, int64_t index, const Config& config) {
  const std::string prefix = "model.layers." + std::to_string(index);
  const std::string feed_forward = prefix + ".feed_forward";
  const int64_t D = config.hidden_size;
  LayerWeights layer;
  layer.input_norm_D = take_bfloat16(file, prefix + ".input_layernorm.weight", D);
  take_attention(file, prefix + ".self_attn", config, layer);
  layer.post_attention_norm_D =
      take_bfloat16(file, prefix + ".post_attention_layernorm.weight", D);
  layer.is_moe = config.is_moe_layer(index);
  if (layer.is_moe) layer.moe = take_moe(file, feed_forward, config);
  if (config.intermediate_size_mlp > 0) {
    const std::string name = feed_forward + (layer.is_moe ? ".shared_expert" : "");
    layer.swiglu = take_swiglu(file, name, config);
  }
  return layer;
}

}  // namespace

ModelWeights read_model_weights(const MappedFile& file, const Config& config) {
  TensorTaker taker(file);
  ModelWeights weights;
  weights.embedding_VD =
      take_matrix(taker, "model.embed_tokens", config.vocab_size, config.hidden_size);
  for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
    weights.layers.push_back(take_layer(taker, i, config));
  }
  weights.final_norm_D = take_bfloat16(taker, "model.norm.weight", config.hidden_size);
  taker.check_nothing_left();
  return weights;
}

}  // namespace mobilemoe
