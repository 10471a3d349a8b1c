// Rotary position embedding with interleaved pairs; mirrors mobilemoe.model.rope.
#pragma once

#include <cstdint>
#include <vector>

#include "config.h"

namespace mobilemoe {

// d/2 angles per position: theta^(-2i/d), where a frequency whose wavelength exceeds
// rope_original_max_position_embeddings is divided by rope_scaling_factor (the llama3 rule
// with equal low and high factors is a hard step).
std::vector<double> rope_frequencies(const Config& config);

// cos and sin [tokens, d/2] for the positions from `first` on.
void rope_table(const std::vector<double>& frequencies, int64_t first, int64_t tokens, float* cos,
                float* sin);

// Rotates the pairs (2i, 2i + 1) of x_d in place.
void apply_rope(float* x_d, const float* cos, const float* sin, int64_t d);

}  // namespace mobilemoe
