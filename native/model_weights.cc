#include "model_weights.h"

#include "errors.h"
#include "json_cursor.h"

namespace mobilemoe {
namespace {

using Shape = std::vector<int64_t>;

size_t element_count(const Shape& shape) {
  size_t count = 1;
  for (const int64_t size : shape) count *= static_cast<size_t>(size);
  return count;
}

// Hands out the tensors of a file one by one, each checked, and knows what is left over.
class TensorTaker {
 public:
  TensorTaker(const MappedFile& file, WeightFormat format)
      : path_(file.path()), tensors_(read_safetensors(file)), format_(format) {
    check_format();
  }

  WeightFormat format() const { return format_; }

  bool holds(const std::string& name, const std::string& dtype) const {
    const auto found = tensors_.find(name);
    return found != tensors_.end() && found->second.dtype == dtype;
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
  // One clear sentence in place of "tensor model.embed_tokens.weight is missing".
  void check_format() const {
    const bool bf16 = format_ == WeightFormat::kBf16;
    if (!tensors_.contains(bf16 ? "model.embed_tokens.qweight" : "model.embed_tokens.weight")) {
      return;
    }
    throw ModelFileError(path_ + (bf16 ? ": holds INT4 weights where BF16 is expected"
                                       : ": holds BF16 weights where INT4 is expected"),
                         "an INT4 checkpoint has a quantization block in its config.json, a BF16 "
                         "one has none");
  }

  std::string path_;
  TensorMap tensors_;
  WeightFormat format_;
};

std::vector<float> take_bfloat16(TensorTaker& file, const std::string& name, const Shape& shape) {
  const uint8_t* data = file.take(name, "BF16", shape);
  std::vector<float> values(element_count(shape));
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = bfloat16_at(data, static_cast<int64_t>(i));
  }
  return values;
}

// F32 in INT4 files; either dtype in BF16 files.
std::vector<float> take_router(TensorTaker& file, const std::string& name, const Shape& shape) {
  if (file.format() == WeightFormat::kBf16 && !file.holds(name, "F32")) {
    return take_bfloat16(file, name, shape);
  }
  const uint8_t* data = file.take(name, "F32", shape);
  std::vector<float> values(element_count(shape));
  std::memcpy(values.data(), data, values.size() * sizeof(float));
  return values;
}

WeightMatrix take_matrix(TensorTaker& file, const std::string& name, int64_t rows,
                         int64_t columns) {
  if (file.format() == WeightFormat::kBf16) {
    return Bf16Matrix{file.take(name + ".weight", "BF16", {rows, columns}), rows, columns};
  }
  return Int4Matrix{file.take(name + ".qweight", "U8", {rows, columns / 2}),
                    file.take(name + ".weight_scale", "F16", {rows, columns / kGroupSize}), rows,
                    columns};
}

std::vector<WeightMatrix> take_bf16_experts(TensorTaker& file, const std::string& name,
                                            int64_t experts, int64_t rows, int64_t columns) {
  const uint8_t* bits = file.take(name + "_proj", "BF16", {experts, rows, columns});
  std::vector<WeightMatrix> matrices;
  for (int64_t e = 0; e < experts; ++e) {
    matrices.push_back(Bf16Matrix{bits + e * rows * columns * 2, rows, columns});
  }
  return matrices;
}

std::vector<WeightMatrix> take_int4_experts(TensorTaker& file, const std::string& name,
                                            int64_t experts, int64_t rows, int64_t columns) {
  const uint8_t* qweight = file.take(name + "_qweight", "U8", {experts, rows, columns / 2});
  const uint8_t* scale =
      file.take(name + "_scale", "F16", {experts, rows, columns / kGroupSize});
  std::vector<WeightMatrix> matrices;
  for (int64_t e = 0; e < experts; ++e) {
    matrices.push_back(Int4Matrix{qweight + e * rows * (columns / 2),
                                  scale + e * rows * (columns / kGroupSize) * 2, rows, columns});
  }
  return matrices;
}

// One view per expert of a fused tensor [E, rows, columns].
std::vector<WeightMatrix> take_experts(TensorTaker& file, const std::string& name, int64_t experts,
                                       int64_t rows, int64_t columns) {
  const bool bf16 = file.format() == WeightFormat::kBf16;
  return (bf16 ? take_bf16_experts : take_int4_experts)(file, name, experts, rows, columns);
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
  moe.router_ED = take_router(file, prefix + ".router.weight", {E, D});
  moe.expert_bias_E = take_bfloat16(file, prefix + ".expert_bias", {E});
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
  layer.input_norm_D = take_bfloat16(file, prefix + ".input_layernorm.weight", {D});
  take_attention(file, prefix + ".self_attn", config, layer);
  layer.post_attention_norm_D =
      take_bfloat16(file, prefix + ".post_attention_layernorm.weight", {D});
  layer.is_moe = config.is_moe_layer(index);
  if (layer.is_moe) layer.moe = take_moe(file, feed_forward, config);
  if (config.intermediate_size_mlp > 0) {
    const std::string name = feed_forward + (layer.is_moe ? ".shared_expert" : "");
    layer.swiglu = take_swiglu(file, name, config);
  }
  return layer;
}

}  // namespace

ModelWeights read_model_weights(const MappedFile& file, const Config& config,
                                WeightFormat format) {
  const int64_t V = config.vocab_size, D = config.hidden_size;
  TensorTaker taker(file, format);
  ModelWeights weights;
  weights.format = format;
  weights.embedding_VD = take_matrix(taker, "model.embed_tokens", V, D);
  for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
    weights.layers.push_back(take_layer(taker, i, config));
  }
  weights.final_norm_D = take_bfloat16(taker, "model.norm.weight", {D});
  const bool tied = config.tie_word_embeddings;
  weights.head_VD = tied ? weights.embedding_VD : take_matrix(taker, "lm_head", V, D);
  taker.check_nothing_left();
  return weights;
}

}  // namespace mobilemoe
