#include "router.h"

#include <cstddef>

#include "elementwise.h"

namespace mobilemoe {
namespace {

// Whether score `a` beats score `b`; false for equal scores, so that the first one stays.
bool beats(float a, float b) {
  if (a != a) return false;
  return b != b || a > b;
}

void choose(const float* scores_E, const float* bias_E, int64_t experts, int64_t k,
            int32_t* topk_ids_K) {
  const auto biased = [&](int64_t e) { return scores_E[e] + bias_E[e]; };
  for (int64_t e = 0; e < experts; ++e) {
    int64_t place = e < k ? e : k;
    while (place > 0 && beats(biased(e), biased(topk_ids_K[place - 1]))) {
      if (place < k) topk_ids_K[place] = topk_ids_K[place - 1];
      --place;
    }
    if (place < k) topk_ids_K[place] = static_cast<int32_t>(e);
  }
}

}  // namespace

void route(const float* logits_E, const float* bias_E, int64_t experts, int64_t k, double scaling,
           float* scores_E, int32_t* topk_ids_K, float* topk_weights_K) {
  for (int64_t e = 0; e < experts; ++e) scores_E[e] = 1.0f / (1.0f + exp_fp32(-logits_E[e]));
  choose(scores_E, bias_E, experts, k, topk_ids_K);
  float total = 0.0f;
  for (int64_t i = 0; i < k; ++i) total += scores_E[topk_ids_K[i]];
  for (int64_t i = 0; i < k; ++i) {
    const float share = scores_E[topk_ids_K[i]] / (total + 1e-20f);
    topk_weights_K[i] = share * static_cast<float>(scaling);
  }
}

void Dispatch::reserve(int64_t choices, int64_t experts) {
  offsets.reserve(static_cast<size_t>(experts) + 1);
  next.reserve(static_cast<size_t>(experts) + 1);
  token.reserve(static_cast<size_t>(choices));
  slot.reserve(static_cast<size_t>(choices));
}

void dispatch(const int32_t* topk_ids_TK, int64_t tokens, int64_t k, int64_t experts,
              Dispatch& out) {
  const auto choices = static_cast<size_t>(tokens * k);
  out.offsets.assign(static_cast<size_t>(experts) + 1, 0);
  out.token.resize(choices);
  out.slot.resize(choices);
  for (size_t i = 0; i < choices; ++i) ++out.offsets[static_cast<size_t>(topk_ids_TK[i]) + 1];
  for (size_t e = 1; e < out.offsets.size(); ++e) out.offsets[e] += out.offsets[e - 1];
  out.next.assign(out.offsets.begin(), out.offsets.end() - 1);
  for (size_t i = 0; i < choices; ++i) {
    const int32_t slot = out.next[static_cast<size_t>(topk_ids_TK[i])]++;
    out.slot[i] = slot;
    out.token[static_cast<size_t>(slot)] = static_cast<int32_t>(i / static_cast<size_t>(k));
  }
}

}  // namespace mobilemoe
