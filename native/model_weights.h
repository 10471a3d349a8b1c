// Every tensor of a checkpoint, INT4 or BF16, as a typed view into the mapped files; mirrors
// mobilemoe.weights.weights.
#pragma once

#include <span>
#include <vector>

#include "config.h"
#include "model_file.h"
#include "weight_matrix.h"

namespace mobilemoe {

// (silu(x gate^T) * (x up^T)) down^T; absent when its matrices have no rows.
struct SwiGluWeights {
  WeightMatrix gate, up, down;
  bool present() const { return rows_of(gate) > 0; }
};

struct MoeWeights {
  // Copied from F32, whose alignment nothing promises, or from BF16.
  std::vector<float> router_ED;
  std::vector<float> expert_bias_E;
  std::vector<WeightMatrix> gate_up_E;  // each [D, 2F], gate first
  std::vector<WeightMatrix> down_E;     // each [F, D]
};

struct LayerWeights {
  std::vector<float> input_norm_D, post_attention_norm_D;
  WeightMatrix q, k, v, o;
  bool is_moe = false;
  MoeWeights moe;        // of an MoE layer
  SwiGluWeights swiglu;  // the shared expert of an MoE layer, or the whole dense layer
};

struct ModelWeights {
  WeightFormat format = WeightFormat::kInt4;
  WeightMatrix embedding_VD;
  WeightMatrix head_VD;  // the embedding again when the head is tied
  std::vector<LayerWeights> layers;
  std::vector<float> final_norm_D;
};

// Reads the headers of `files`, at least one, and maps them. Throws ModelFileError when a tensor
// is missing, unknown, in two files, or of another dtype or shape than `config` and `format` ask
// for, and for every other damage. Refusing takes the memory of the longest header and, whatever
// the files say, little more. The views live as long as `files`.
ModelWeights read_model_weights(std::span<ModelFile* const> files, const Config& config,
                                WeightFormat format);

}  // namespace mobilemoe
