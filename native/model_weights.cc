#include "model_weights.h"

#include <cstring>
#include <string>

#include "safetensors.h"

namespace mobilemoe {
namespace {

size_t element_count(const Shape& shape) {
  size_t count = 1;
  for (const int64_t size : shape) count *= static_cast<size_t>(size);
  return count;
}

// Where the walk over a model's tensors takes them from. A first walk only lists what the files
// must hold: it gets no bytes, and its result is thrown away. A walk after `open` gets them.
class TensorTaker {
 public:
  explicit TensorTaker(WeightFormat format) : format_(format) {}

  WeightFormat format() const { return format_; }
  bool listing() const { return data_.empty(); }

  // `dtypes`: those that the model can read.
  const uint8_t* take(const std::string& name, const std::vector<std::string>& dtypes,
                      const Shape& shape) {
    if (listing()) {
      table_.expect(name, dtypes, shape);
      return nullptr;
    }
    const Tensor& tensor = table_.at(name);
    return data_[static_cast<size_t>(tensor.file)] + tensor.begin;
  }

  // As found in the file; after `open`.
  const std::string& dtype(const std::string& name) const { return table_.at(name).dtype; }

  const TensorTable& table() const { return table_; }

  // Checks every header before any file is mapped, and all of them before any tensor is copied.
  void open(std::span<ModelFile* const> files) {
    std::vector<uint64_t> offsets;
    for (const ModelFile* file : files) offsets.push_back(table_.add(*file));
    table_.check_complete();
    for (size_t i = 0; i < files.size(); ++i) data_.push_back(files[i]->map() + offsets[i]);
  }

 private:
  WeightFormat format_;
  TensorTable table_;
  std::vector<const uint8_t*> data_;  // the data section of each file
};

std::vector<float> bfloat16_values(const uint8_t* data, size_t count) {
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) values[i] = bfloat16_at(data, static_cast<int64_t>(i));
  return values;
}

std::vector<float> take_bfloat16(TensorTaker& file, const std::string& name, const Shape& shape) {
  const uint8_t* data = file.take(name, {"BF16"}, shape);
  if (file.listing()) return {};
  return bfloat16_values(data, element_count(shape));
}

// F32 in INT4 files; either dtype in BF16 files.
std::vector<float> take_router(TensorTaker& file, const std::string& name, const Shape& shape) {
  std::vector<std::string> dtypes = {"F32"};
  if (file.format() == WeightFormat::kBf16) dtypes = {"BF16", "F32"};
  const uint8_t* data = file.take(name, dtypes, shape);
  if (file.listing()) return {};
  if (file.dtype(name) == "BF16") return bfloat16_values(data, element_count(shape));
  std::vector<float> values(element_count(shape));
  std::memcpy(values.data(), data, values.size() * sizeof(float));
  return values;
}

WeightMatrix take_matrix(TensorTaker& file, const std::string& name, int64_t rows,
                         int64_t columns) {
  if (file.format() == WeightFormat::kBf16) {
    return Bf16Matrix{file.take(name + ".weight", {"BF16"}, {rows, columns}), rows, columns};
  }
  return Int4Matrix{file.take(name + ".qweight", {"U8"}, {rows, columns / 2}),
                    file.take(name + ".weight_scale", {"F16"}, {rows, columns / kGroupSize}), rows,
                    columns};
}

std::vector<WeightMatrix> take_bf16_experts(TensorTaker& file, const std::string& name,
                                            int64_t experts, int64_t rows, int64_t columns) {
  const uint8_t* bits = file.take(name + "_proj", {"BF16"}, {experts, rows, columns});
  if (file.listing()) return {};
  std::vector<WeightMatrix> matrices;
  for (int64_t e = 0; e < experts; ++e) {
    matrices.push_back(Bf16Matrix{bits + e * rows * columns * 2, rows, columns});
  }
  return matrices;
}

std::vector<WeightMatrix> take_int4_experts(TensorTaker& file, const std::string& name,
                                            int64_t experts, int64_t rows, int64_t columns) {
  const uint8_t* qweight = file.take(name + "_qweight", {"U8"}, {experts, rows, columns / 2});
  const uint8_t* scale =
      file.take(name + "_scale", {"F16"}, {experts, rows, columns / kGroupSize});
  if (file.listing()) return {};
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

ModelWeights take_model(TensorTaker& file, const Config& config) {
  const int64_t V = config.vocab_size, D = config.hidden_size;
  ModelWeights weights;
  weights.format = file.format();
  weights.embedding_VD = take_matrix(file, "model.embed_tokens", V, D);
  for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
    weights.layers.push_back(take_layer(file, i, config));
  }
  weights.final_norm_D = take_bfloat16(file, "model.norm.weight", {D});
  const bool tied = config.tie_word_embeddings;
  weights.head_VD = tied ? weights.embedding_VD : take_matrix(file, "lm_head", V, D);
  return weights;
}

// Throws when the unknown tensor is one of the same model in the other format.
void explain(const UnknownTensor& error, const Config& config, WeightFormat format) {
  const bool bf16 = format == WeightFormat::kBf16;
  const WeightFormat other = bf16 ? WeightFormat::kInt4 : WeightFormat::kBf16;
  if (!expected_tensors(config, other).tensors().contains(error.name)) return;
  throw ModelFileError(error.path + (bf16 ? ": holds INT4 weights where BF16 is expected"
                                          : ": holds BF16 weights where INT4 is expected"),
                       "an INT4 checkpoint has a quantization block in its config.json, a BF16 "
                       "one has none");
}

}  // namespace

TensorTable expected_tensors(const Config& config, WeightFormat format) {
  TensorTaker taker(format);
  take_model(taker, config);
  return taker.table();
}

ModelWeights read_model_weights(std::span<ModelFile* const> files, const Config& config,
                                WeightFormat format) {
  TensorTaker taker(format);
  take_model(taker, config);
  try {
    taker.open(files);
  } catch (const UnknownTensor& error) {
    explain(error, config, format);
    throw;
  }
  ModelWeights weights = take_model(taker, config);
  for (const ModelFile* file : files) file->check_intact();
  return weights;
}

}  // namespace mobilemoe
