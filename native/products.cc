#include "products.h"

#include <algorithm>

namespace mobilemoe {
namespace {

struct Plan {
  int64_t units;      // pieces of kGroupSize outputs
  int64_t unit_cost;  // multiplications per output
};

Plan plan(const LinearProduct& product) {
  return {(product.w_OI->rows + kGroupSize - 1) / kGroupSize,
          product.w_OI->columns * product.x_TI->tokens};
}

Plan plan(const ExpertProduct& product) {
  return {product.w_IO->columns / kGroupSize, product.w_IO->rows * product.slots};
}

void run(const Kernels& kernels, const LinearProduct& product, int64_t begin, int64_t end) {
  const Activations& x = *product.x_TI;
  const int64_t first = begin * kGroupSize;
  const int64_t last = std::min(end * kGroupSize, product.w_OI->rows);
  if (x.format == ActivationFormat::kInt8) {
    kernels.linear_int8(*product.w_OI, x.quantized, x.tokens, first, last, product.y_TO);
  } else {
    kernels.linear_fp32(*product.w_OI, x.x_TI, x.tokens, first, last, product.y_TO);
  }
}

void run(const Kernels& kernels, const ExpertProduct& product, int64_t begin, int64_t end) {
  const bool int8 = product.format == ActivationFormat::kInt8;
  const auto kernel = int8 ? kernels.expert_int8 : kernels.expert_fp32;
  kernel(*product.w_IO, product.x_S, product.slots, begin, end, product.y_SO);
}

// The first unit that starts at or after `cost`, when the product itself starts at 0.
int64_t unit_at(const Plan& plan, int64_t cost) {
  if (cost <= 0) return 0;
  return std::min(plan.units, (cost + plan.unit_cost - 1) / plan.unit_cost);
}

}  // namespace

void run_products(ThreadPool& pool, const Kernels& kernels, std::span<const Product> products) {
  const auto plan_of = [](const Product& product) {
    return std::visit([](const auto& p) { return plan(p); }, product);
  };
  int64_t total = 0;
  for (const Product& product : products) {
    total += plan_of(product).units * plan_of(product).unit_cost;
  }
  pool.parallel_for(total, [&](int64_t begin, int64_t end, int) {
    int64_t start = 0;
    for (const Product& product : products) {
      const Plan plan = plan_of(product);
      const int64_t first = unit_at(plan, begin - start), last = unit_at(plan, end - start);
      if (first < last) std::visit([&](const auto& p) { run(kernels, p, first, last); }, product);
      start += plan.units * plan.unit_cost;
    }
  });
}

}  // namespace mobilemoe
