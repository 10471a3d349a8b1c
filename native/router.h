// route -> dispatch; mirrors mobilemoe.model.moe.route and .dispatch.
#pragma once

#include <cstdint>
#include <vector>

namespace mobilemoe {

// Chooses the K largest of sigmoid(logits) + bias for one token and writes their ids, best
// first, and their weights: the unbiased scores, normalised to sum `scaling`.
// Ties: the lower index wins. NaN ranks last, so ids are always distinct and in range.
// `scores_E` receives the sigmoids; it may be `logits_E`.
void route(const float* logits_E, const float* bias_E, int64_t experts, int64_t k, double scaling,
           float* scores_E, int32_t* topk_ids_K, float* topk_weights_K);

// The T K choices sorted by expert, stable in token order (a counting sort).
struct Dispatch {
  std::vector<int32_t> offsets;  // [E + 1]: expert e owns slots offsets[e] to offsets[e + 1]
  std::vector<int32_t> token;    // [T K] slot -> token
  std::vector<int32_t> slot;     // [T K] choice (t K + k) -> slot
  std::vector<int32_t> next;     // [E]: where the next choice of an expert goes

  // Room for up to `choices` choices, so that `dispatch` takes no memory.
  void reserve(int64_t choices, int64_t experts);
};

void dispatch(const int32_t* topk_ids_TK, int64_t tokens, int64_t k, int64_t experts,
              Dispatch& out);

}  // namespace mobilemoe
