// Every tensor of an INT4 checkpoint as a typed view into the mapped file; mirrors
// mobilemoe.weights.weights.
#pragma once

#include <vector>

#include "config.h"
#include "int4.h"
#include "safetensors.h"

namespace mobilemoe {

// (silu(x gate^T) * (x up^T)) down^T; absent when its matrices have no rows.
struct SwiGluWeights {
  Int4Matrix gate, up, down;
  bool present() const { return gate.rows > 0; }
};

struct MoeWeights {
  // The router is F32 in the file; it is copied because nothing promises its alignment.
  std::vector<float> router_ED;
  std::vector<float> expert_bias_E;
  std::vector<Int4Matrix> gate_up_E;  // each [D, 2F], gate first
  std::vector<Int4Matrix> down_E;     // each [F, D]
};

struct LayerWeights {
  std::vector<float> input_norm_D, post_attention_norm_D;
  Int4Matrix q, k, v, o;
  bool is_moe = false;
  MoeWeights moe;        // of an MoE layer
  SwiGluWeights swiglu;  // the shared expert of an MoE layer, or the whole dense layer
};

struct ModelWeights {
  Int4Matrix embedding_VD;  // also the output head
  std::vector<LayerWeights> layers;
  std::vector<float> final_norm_D;
};

// Throws ModelFileError when a tensor is missing, unknown, or of another dtype or shape than
// `config` asks for. The views live as long as `file`.
ModelWeights read_model_weights(const MappedFile& file, const Config& config);

}  // namespace mobilemoe
