#include "train_norm.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "train_dot.h"

namespace mobilemoe {
namespace {

// Rows whose share of a weight's gradient is summed first: fixed, so that the order is.
constexpr int64_t kRowsPerSum = 64;

float factor_of(const float* x, int64_t width, float eps) {
  return 1.0f / std::sqrt(dot_rows(x, x, width) / static_cast<float>(width) + eps);
}

// grad_x from the gradient of x * factor, which may lie in `grad_x`.
void norm_gradient(const float* x, const float* grad, int64_t width, float factor, float* grad_x) {
  const float mean = dot_rows(x, grad, width) / static_cast<float>(width) * factor * factor;
  for (int64_t d = 0; d < width; ++d) grad_x[d] = factor * (grad[d] - x[d] * mean);
}

// Turns the pairs of x by the angles, or back.
void rotate(const float* __restrict x, const float* __restrict cosines,
            const float* __restrict sines, int64_t pairs, float direction, float factor,
            float* __restrict y) {
  for (int64_t i = 0; i < pairs; ++i) {
    const float even = x[2 * i] * factor, odd = x[2 * i + 1] * factor;
    const float sine = sines[i] * direction;
    y[2 * i] = even * cosines[i] - odd * sine;
    y[2 * i + 1] = even * sine + odd * cosines[i];
  }
}

void block_gradient(const Norm& norm, int64_t block, const float* grad_y_RD, float* grad_x_RD,
                    float* __restrict sums_D) {
  const int64_t D = norm.width;
  std::fill(sums_D, sums_D + D, 0.0f);
  const int64_t end = std::min((block + 1) * kRowsPerSum, norm.rows);
  for (int64_t r = block * kRowsPerSum; r < end; ++r) {
    const float* __restrict x = norm.x_RD + r * D;
    const float* __restrict grad_y = grad_y_RD + r * D;
    float* __restrict grad_x = grad_x_RD + r * D;
    const float factor = norm.factors_R[r];
    for (int64_t d = 0; d < D; ++d) {
      sums_D[d] += grad_y[d] * (x[d] * factor);
      grad_x[d] = grad_y[d] * norm.weight_D[d];
    }
    norm_gradient(x, grad_x, D, factor, grad_x);
  }
}

// Calls `work(t, row of [B, T, H], row of [B, H, T])` for this thread's share of the heads.
template <class Work>
void for_heads(const Part& thread, const Heads& heads, const Work& work) {
  const Range part = thread.share(heads.batch * heads.tokens * heads.heads);
  for (int64_t row = part.begin; row < part.end; ++row) {
    const int64_t h = row % heads.heads, t = row / heads.heads % heads.tokens;
    const int64_t b = row / heads.heads / heads.tokens;
    work(t, row, (b * heads.heads + h) * heads.tokens + t);
  }
}

}  // namespace

void rms_norm_rows(const Crew& crew, const Norm& norm, float eps, float* y_RD) {
  const int64_t D = norm.width;
  crew.run([&](const Part& thread) {
    const Range part = thread.share(norm.rows);
    for (int64_t r = part.begin; r < part.end; ++r) {
      const float* __restrict x = norm.x_RD + r * D;
      float* __restrict y = y_RD + r * D;
      const float factor = norm.factors_R[r] = factor_of(x, D, eps);
      for (int64_t d = 0; d < D; ++d) y[d] = x[d] * factor * norm.weight_D[d];
    }
  });
}

void rms_norm_rows_gradient(const Crew& crew, const Norm& norm, const float* grad_y_RD,
                            float* grad_x_RD, float* grad_weight_D) {
  const int64_t D = norm.width, blocks = (norm.rows + kRowsPerSum - 1) / kRowsPerSum;
  std::vector<float> sums_KD(static_cast<size_t>(blocks * D));
  crew.run([&](const Part& thread) {
    const Range part = thread.share(blocks);
    for (int64_t block = part.begin; block < part.end; ++block) {
      block_gradient(norm, block, grad_y_RD, grad_x_RD, sums_KD.data() + block * D);
    }
  });
  crew.run([&](const Part& thread) {
    const Range columns = thread.share(D);
    std::fill(grad_weight_D + columns.begin, grad_weight_D + columns.end, 0.0f);
    for (int64_t block = 0; block < blocks; ++block) {
      const float* sums = sums_KD.data() + block * D;
      for (int64_t d = columns.begin; d < columns.end; ++d) grad_weight_D[d] += sums[d];
    }
  });
}

void rotate_heads(const Crew& crew, const Heads& heads, float eps, float* y_BHTd) {
  const int64_t d = heads.d;
  crew.run([&](const Part& thread) {
    for_heads(thread, heads, [&](int64_t t, int64_t row, int64_t to) {
      const float* x = heads.x_BTHd + row * d;
      const float factor = heads.factors_BTH[row] = factor_of(x, d, eps);
      rotate(x, heads.cosines + t * d / 2, heads.sines + t * d / 2, d / 2, 1, factor,
             y_BHTd + to * d);
    });
  });
}

void rotate_heads_gradient(const Crew& crew, const Heads& heads, const float* grad_y_BHTd,
                           float* grad_x_BTHd) {
  const int64_t d = heads.d;
  crew.run([&](const Part& thread) {
    for_heads(thread, heads, [&](int64_t t, int64_t row, int64_t from) {
      float* grad_x = grad_x_BTHd + row * d;
      rotate(grad_y_BHTd + from * d, heads.cosines + t * d / 2, heads.sines + t * d / 2, d / 2, -1,
             1, grad_x);
      norm_gradient(heads.x_BTHd + row * d, grad_x, d, heads.factors_BTH[row], grad_x);
    });
  });
}

}  // namespace mobilemoe
