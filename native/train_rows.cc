#include "train_rows.h"

#include <algorithm>
#include <vector>

#include "train_dot.h"

namespace mobilemoe {
namespace {

bool is_larger(float a, float b) { return a > b || (a != a && b == b); }

// Keeps the best K so far in order; a later score must be larger to pass an earlier one.
void choose(const float* scores_E, int64_t experts, int64_t k, int64_t* ids_K) {
  int64_t kept = 0;
  for (int64_t e = 0; e < experts; ++e) {
    if (kept == k && !is_larger(scores_E[e], scores_E[ids_K[k - 1]])) continue;
    int64_t at = kept < k ? kept++ : k - 1;
    for (; at > 0 && is_larger(scores_E[e], scores_E[ids_K[at - 1]]); --at) {
      ids_K[at] = ids_K[at - 1];
    }
    ids_K[at] = e;
  }
}

void combine_token(const Combine& c, int64_t t, float* __restrict y) {
  std::fill(y, y + c.width, 0.0f);
  for (int64_t choice = t * c.k; choice < (t + 1) * c.k; ++choice) {
    if (c.slots_TK[choice] < 0) continue;
    const float* __restrict x = c.x_ND + c.slots_TK[choice] * c.width;
    const float weight = c.weights_TK == nullptr ? 1.0f : c.weights_TK[choice];
    for (int64_t d = 0; d < c.width; ++d) y[d] += weight * x[d];
  }
}

void combine_choice_gradient(const Combine& c, int64_t choice, const float* grad_y_TD,
                             float* grad_x_ND, float* grad_weights_TK) {
  const int64_t slot = c.slots_TK[choice];
  grad_weights_TK[choice] = 0;
  if (slot < 0) return;
  const float* __restrict grad_y = grad_y_TD + choice / c.k * c.width;
  float* __restrict grad_x = grad_x_ND + slot * c.width;
  grad_weights_TK[choice] = dot_rows(grad_y, c.x_ND + slot * c.width, c.width);
  const float weight = c.weights_TK[choice];
  for (int64_t d = 0; d < c.width; ++d) grad_x[d] = weight * grad_y[d];
}

}  // namespace

void choose_experts(const Crew& crew, const float* scores_TE, int64_t tokens, int64_t experts,
                    int64_t k, int64_t* ids_TK) {
  crew.run([&](const Part& thread) {
    const Range part = thread.share(tokens);
    for (int64_t t = part.begin; t < part.end; ++t) {
      choose(scores_TE + t * experts, experts, k, ids_TK + t * k);
    }
  });
}

void sort_by_expert(const int64_t* ids, int64_t count, int64_t experts, int64_t* order) {
  std::vector<int64_t> next(static_cast<size_t>(experts + 1));
  for (int64_t i = 0; i < count; ++i) ++next[static_cast<size_t>(ids[i] + 1)];
  for (size_t e = 1; e < next.size(); ++e) next[e] += next[e - 1];
  for (int64_t i = 0; i < count; ++i) order[next[static_cast<size_t>(ids[i])]++] = i;
}

void combine_rows(const Crew& crew, const Combine& combine, float* y_TD) {
  crew.run([&](const Part& thread) {
    const Range part = thread.share(combine.tokens);
    for (int64_t t = part.begin; t < part.end; ++t) {
      combine_token(combine, t, y_TD + t * combine.width);
    }
  });
}

void combine_rows_gradient(const Crew& crew, const Combine& combine, const float* grad_y_TD,
                           float* grad_x_ND, float* grad_weights_TK) {
  crew.run([&](const Part& thread) {
    const Range part = thread.share(combine.tokens * combine.k);
    for (int64_t choice = part.begin; choice < part.end; ++choice) {
      combine_choice_gradient(combine, choice, grad_y_TD, grad_x_ND, grad_weights_TK);
    }
  });
}

void swiglu(const Crew& crew, const GemmKernels& kernels, int64_t count, const float* gate,
            const float* up, float* a) {
  crew.run([&](const Part& thread) {
    const auto [begin, end] = thread.share(count);
    kernels.swiglu(gate + begin, up + begin, end - begin, a + begin);
  });
}

void swiglu_gradient(const Crew& crew, const GemmKernels& kernels, const SwigluGradient& arrays) {
  constexpr int64_t kBlock = 512;
  crew.run([&](const Part& thread) {
    float a[kBlock];  // which the product behind it has kept
    const auto [begin, end] = thread.share(arrays.count);
    for (int64_t i = begin; i < end; i += kBlock) {
      kernels.swiglu_gradient(arrays.gate + i, arrays.up + i, arrays.grad_a + i,
                              std::min(kBlock, end - i), a, arrays.grad_gate + i,
                              arrays.grad_up + i);
    }
  });
}

void cross_entropy_rows(const Crew& crew, const GemmKernels& kernels, const CrossEntropy& rows) {
  crew.run([&](const Part& thread) {
    const Range part = thread.share(rows.rows);
    for (int64_t n = part.begin; n < part.end; ++n) {
      float* logits = rows.logits_NV + n * rows.width;
      rows.losses_N[n] = kernels.cross_entropy(logits, rows.width, rows.targets_N[n]);
    }
  });
}

}  // namespace mobilemoe
