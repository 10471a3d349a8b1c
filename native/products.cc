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

// Calls `body(product, first unit, last unit)` for this thread's share of all products.
template <class Body>
void for_share(const Team& team, std::span<const Product> products, const Body& body) {
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
    if (first < last) body(product, first, last);
    start += plan.units * plan.unit_cost;
  }
}

// Bytes of weights that are asked for ahead of a product; their scales come on top.
constexpr int64_t kPrefetchBytes = 8192;

void prefetch(const uint8_t* bytes, int64_t count) {
  for (int64_t i = 0; i < count; i += 64) __builtin_prefetch(bytes + i, 0, 1);
}

// From row `first` of a linear layer on; of an expert, whose rows are read whole, from row 0.
void prefetch_rows(const Int4Matrix& w, int64_t first) {
  const int64_t left = w.rows - first, row = w.columns / 2;
  const int64_t rows = std::min(left, kPrefetchBytes / row + 1);
  prefetch(row_bytes(w, first), rows * row);
  prefetch(row_scales(w, first), rows * row / 8);
}

void prefetch_rows(const Bf16Matrix& w, int64_t first) {
  const int64_t left = w.rows - first, row = w.columns * 2;
  prefetch(row_bits(w, first), std::min(left * row, kPrefetchBytes));
}

void prefetch_product(const LinearProduct& product, int64_t first) {
  std::visit([&](const auto& w) { prefetch_rows(w, first * kGroupSize); }, *product.w_OI);
}

void prefetch_product(const ExpertProduct& product, int64_t) {
  std::visit([&](const auto& w) { prefetch_rows(w, 0); }, *product.w_IO);
}

// What a product reads, from its first unit on, as far as the cache has room for it.
constexpr int64_t kAheadBytes = 131072;

ReadAhead read_ahead(const Int4Matrix& w, int64_t first, int64_t last) {
  const int64_t bytes = (std::min(last, w.rows) - first) * (w.columns / 2);
  return {row_bytes(w, first), std::min(bytes, kAheadBytes)};
}

ReadAhead read_ahead(const Bf16Matrix& w, int64_t first, int64_t last) {
  const int64_t bytes = (std::min(last, w.rows) - first) * w.columns * 2;
  return {row_bits(w, first), std::min(bytes, kAheadBytes)};
}

ReadAhead read_ahead(const LinearProduct& product, int64_t first, int64_t last) {
  return std::visit(
      [&](const auto& w) { return read_ahead(w, first * kGroupSize, last * kGroupSize); },
      *product.w_OI);
}

ReadAhead read_ahead(const ExpertProduct& product, int64_t, int64_t) {
  return std::visit([&](const auto& w) { return read_ahead(w, 0, w.rows); }, *product.w_IO);
}

}  // namespace

void multiply(const Team& team, const Kernels& kernels, std::span<const Product> products) {
  struct Piece {
    const Product* product = nullptr;
    int64_t first = 0, last = 0;
  } before;
  const auto run_piece = [&](const Piece& piece) {
    if (piece.product == nullptr) return;
    std::visit([&](const auto& p) { run(kernels, p, piece.first, piece.last); }, *piece.product);
  };
  // The next product's beginning is asked for before the one in front of it is computed.
  for_share(team, products, [&](const Product& product, int64_t first, int64_t last) {
    std::visit([&](const auto& p) { prefetch_product(p, first); }, product);
    run_piece(before);
    before = {&product, first, last};
  });
  run_piece(before);
}

ReadAhead prefetch_share(const Team& team, std::span<const Product> products) {
  ReadAhead ahead;
  bool done = false;
  for_share(team, products, [&](const Product& product, int64_t first, int64_t last) {
    if (done) return;
    done = true;
    std::visit([&](const auto& p) { prefetch_product(p, first); }, product);
    ahead = std::visit([&](const auto& p) { return read_ahead(p, first, last); }, product);
  });
  return ahead;
}

void multiply(const Kernels& kernels, const ExpertProduct& product) {
  run(kernels, product, 0, plan(product).units);
}

}  // namespace mobilemoe
