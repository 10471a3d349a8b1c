#include "products.h"

#include <algorithm>
#include <cassert>

namespace mobilemoe {
namespace {

struct Plan {
  int64_t units;      // pieces of kGroupSize outputs
  int64_t unit_cost;  // multiplications per output
};

Plan plan(const LinearProduct& product) {
  return {(rows_of(*product.w_OI) + kGroupSize - 1) / kGroupSize,
          columns_of(*product.w_OI) * product.x_TI.tokens};
}

Plan plan(const ExpertProduct& product) {
  return {columns_of(*product.w_IO) / kGroupSize, rows_of(*product.w_IO) * product.x_SI.slots};
}

void linear(const Kernels& kernels, const Int4Matrix& w, const Activations& x, int64_t first,
            int64_t last, float* y) {
  if (x.format == ActivationFormat::kInt8) {
    kernels.linear_int8(w, x.quantized, x.tokens, first, last, y);
  } else {
    kernels.linear_fp32(w, x.x_TI, x.tokens, first, last, y);
  }
}

void linear(const Kernels& kernels, const Bf16Matrix& w, const Activations& x, int64_t first,
            int64_t last, float* y) {
  assert(x.format == ActivationFormat::kFp32);
  kernels.linear_bf16(w, x.x_TI, x.tokens, first, last, y);
}

void expert(const Kernels& kernels, const Int4Matrix& w, const ExpertProduct& product,
            int64_t begin, int64_t end) {
  const ExpertInput& x = product.x_SI;
  if (x.format == ActivationFormat::kInt8) {
    kernels.expert_int8(w, x.scaled, x.rows_S, x.slots, begin, end, product.y_SO);
  } else {
    kernels.expert_fp32(w, x.x_S, x.slots, begin, end, product.y_SO);
  }
}

void expert(const Kernels& kernels, const Bf16Matrix& w, const ExpertProduct& product,
            int64_t begin, int64_t end) {
  assert(product.x_SI.format == ActivationFormat::kFp32);
  kernels.expert_bf16(w, product.x_SI.x_S, product.x_SI.slots, begin, end, product.y_SO);
}

void run(const Kernels& kernels, const LinearProduct& product, int64_t begin, int64_t end) {
  const int64_t first = begin * kGroupSize;
  const int64_t last = std::min(end * kGroupSize, rows_of(*product.w_OI));
  std::visit([&](const auto& w) { linear(kernels, w, product.x_TI, first, last, product.y_TO); },
             *product.w_OI);
}

void run(const Kernels& kernels, const ExpertProduct& product, int64_t begin, int64_t end) {
  std::visit([&](const auto& w) { expert(kernels, w, product, begin, end); }, *product.w_IO);
}

// The first unit that starts at or after `cost`, when the product itself starts at 0.
int64_t unit_at(const Plan& plan, int64_t cost) {
  if (cost <= 0) return 0;
  return std::min(plan.units, (cost + plan.unit_cost - 1) / plan.unit_cost);
}

}  // namespace

void multiply(const Team& team, const Kernels& kernels, std::span<const Product> products) {
  const auto plan_of = [](const Product& product) {
    return std::visit([](const auto& p) { return plan(p); }, product);
  };
  int64_t total = 0;
  for (const Product& product : products) {
    total += plan_of(product).units * plan_of(product).unit_cost;
  }
  const Range share = team.share(total);
  int64_t start = 0;
  for (const Product& product : products) {
    const Plan plan = plan_of(product);
    const int64_t first = unit_at(plan, share.begin - start);
    const int64_t last = unit_at(plan, share.end - start);
    if (first < last) std::visit([&](const auto& p) { run(kernels, p, first, last); }, product);
    start += plan.units * plan.unit_cost;
  }
}

void multiply(const Kernels& kernels, const ExpertProduct& product) {
  run(kernels, product, 0, plan(product).units);
}

}  // namespace mobilemoe
