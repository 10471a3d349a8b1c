// Products with weights [O, I], grouped along the input axis.
#include <numeric>
#include <string>

#include "checks.h"
#include "product_case.h"

namespace mobilemoe::check {
namespace {

struct Shape {
  int64_t rows, width, tokens;
};

std::string describe(const Shape& shape, Poison poison) {
  return "rows " + std::to_string(shape.rows) + ", width " + std::to_string(shape.width) +
         ", tokens " + std::to_string(shape.tokens) + poison_name(poison);
}

// Calls `check(shape, poison, random)` for all pairs of rows and tokens, or for all of each.
template <class Check>
int64_t for_shapes(Sizes sizes, const Check& check) {
  Random random(2);
  int64_t cases = 0;
  for (int64_t rows = 1; rows <= 35; ++rows) {
    for (int64_t tokens = 1; tokens <= 14; ++tokens) {
      if (sizes == Sizes::kFew && (rows + tokens) % 7 != 0) continue;
      const auto width = static_cast<int64_t>(32 * (1 + random.below(10)));
      // The last of each stand for "many".
      const Shape shape{rows < 34 ? rows : 31 * rows - 990, width, tokens < 14 ? tokens : 70};
      check(shape, cases % 8 == 0 ? kPoisons[1 + random.below(2)] : Poison::kNone, random);
      ++cases;
    }
  }
  return cases;
}

void poison_scale(Random& random, Poison poison, Int4Data& w) {
  if (poison == Poison::kNone) return;
  const auto row = static_cast<int64_t>(random.below(static_cast<size_t>(w.matrix.rows)));
  const auto groups = static_cast<size_t>(w.matrix.columns / kGroupSize);
  w.set_scale(row, static_cast<int64_t>(random.below(groups)), poison_half(poison));
}

// A float product: `function` picks it from a table.
template <class Data, class Function>
void check_floats(const Kernels& table, const Data& w, Function Kernels::*function,
                  const std::vector<float>& x, const Shape& shape, const std::string& what,
                  Random& random) {
  std::vector<int32_t> rows(static_cast<size_t>(shape.tokens));
  std::iota(rows.begin(), rows.end(), 0);
  const auto weight = [&](int64_t i, int64_t o) { return value_at(w.matrix, o, i); };
  check_product(
      table,
      {what, shape.tokens, shape.rows, 1,
       [&](const Kernels& t, int64_t first, int64_t tokens, int64_t begin, int64_t end, float* y) {
         // Exactly these rows, so that a sanitizer sees the ends.
         const auto from = x.begin() + first * shape.width;
         const std::vector<float> some(from, from + tokens * shape.width);
         (t.*function)(w.matrix, some.data(), tokens, begin, end, y);
       },
       product_tolerance(shape.tokens, shape.rows, shape.width, weight, x, rows)},
      random);
}

}  // namespace

int64_t check_linear_fp32(const Kernels& table, Sizes sizes) {
  return for_shapes(sizes, [&](const Shape& shape, Poison poison, Random& random) {
    Int4Data w = random_int4(random, shape.rows, shape.width);
    std::vector<float> x = random_floats(random, shape.tokens * shape.width);
    random.one_in(2) ? poison_scale(random, poison, w) : poison_one(random, poison, x);
    check_floats(table, w, &Kernels::linear_fp32, x, shape, describe(shape, poison), random);
  });
}

int64_t check_linear_bf16(const Kernels& table, Sizes sizes) {
  return for_shapes(sizes, [&](const Shape& shape, Poison poison, Random& random) {
    const Bf16Data w = random_bf16(random, shape.rows, shape.width);
    std::vector<float> x = random_floats(random, shape.tokens * shape.width);
    poison_one(random, poison, x);
    check_floats(table, w, &Kernels::linear_bf16, x, shape, describe(shape, poison), random);
  });
}

int64_t check_linear_int8(const Kernels& table, Sizes sizes) {
  return for_shapes(sizes, [&](const Shape& shape, Poison poison, Random& random) {
    Int4Data w = random_int4(random, shape.rows, shape.width);
    std::vector<float> x = random_floats(random, shape.tokens * shape.width);
    random.one_in(2) ? poison_scale(random, poison, w) : poison_one(random, poison, x);
    const QuantizedData quantized = quantize(x, shape.width);
    check_product(
        table,
        {describe(shape, poison), shape.tokens, shape.rows, 1,
         [&](const Kernels& t, int64_t first, int64_t tokens, int64_t begin, int64_t end,
             float* y) {
           t.linear_int8(w.matrix, quantized.rows(first), tokens, begin, end, y);
         },
         {}},
        random);
  });
}

}  // namespace mobilemoe::check
