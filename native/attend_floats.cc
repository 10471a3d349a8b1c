#include "attend_floats.h"

#include <algorithm>

#include "elementwise.h"

namespace mobilemoe {
namespace {

// `body(first, count)` for the blocks of N positions.
template <class Body>
void for_blocks(int64_t positions, const Body& body) {
  for (int64_t first = 0; first < positions; first += kPositionBlock) {
    body(first, std::min(kPositionBlock, positions - first));
  }
}

}  // namespace

size_t float_scratch(const Config& config, int64_t context) {
  const int64_t heads = config.num_attention_heads / config.num_key_value_heads;
  return static_cast<size_t>(heads * context + (kPositionBlock + 1) * config.head_dim);
}

void attend_fp32(const Kernels& kernels, const FloatQueries& queries, const float* k_Nd,
                 const float* v_Nd, float* scratch, float* out_Md) {
  const int64_t d = queries.d, N = queries.positions;
  for (int64_t m = 0; m < queries.heads; ++m) {
    kernels.attention_scores(queries.q_Md + m * d, k_Nd, N, d, queries.factor, scratch);
    softmax(scratch, N);
    kernels.attention_values(scratch, v_Nd, N, d, out_Md + m * d);
  }
}

void attend_fp16(const Kernels& kernels, const FloatQueries& queries, const uint16_t* k_Nd,
                 const uint16_t* v_Nd, float* scratch, float* out_Md) {
  const int64_t d = queries.d, N = queries.positions, M = queries.heads;
  float* scores_MN = scratch;
  float* block_Nd = scores_MN + M * N;
  float* part_d = block_Nd + kPositionBlock * d;
  for_blocks(N, [&](int64_t first, int64_t count) {
    kernels.widen_fp16(k_Nd + first * d, count * d, block_Nd);
    for (int64_t m = 0; m < M; ++m) {
      kernels.attention_scores(queries.q_Md + m * d, block_Nd, count, d, queries.factor,
                               scores_MN + m * N + first);
    }
  });
  for (int64_t m = 0; m < M; ++m) softmax(scores_MN + m * N, N);
  std::fill(out_Md, out_Md + M * d, 0.0f);
  for_blocks(N, [&](int64_t first, int64_t count) {
    kernels.widen_fp16(v_Nd + first * d, count * d, block_Nd);
    for (int64_t m = 0; m < M; ++m) {
      kernels.attention_values(scores_MN + m * N + first, block_Nd, count, d, part_d);
      for (int64_t i = 0; i < d; ++i) out_Md[m * d + i] += part_d[i];
    }
  });
}

}  // namespace mobilemoe
