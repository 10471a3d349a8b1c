// The float functions of attention over an exact cache.
#include <cmath>
#include <string>

#include "checks.h"
#include "compare.h"
#include "product_case.h"

namespace mobilemoe::check {
namespace {

constexpr int64_t kDims[] = {16, 32, 64, 128};

size_t size_of(int64_t count) { return static_cast<size_t>(count); }

// sum_i a[i] b[i] and what a float sum of it may be off by; `stride` between elements of b.
struct Sum {
  double value = 0.0, tolerance = 0.0;
};

Sum exact_sum(const float* a, const float* b, int64_t count, int64_t stride) {
  Sum sum;
  double magnitude = 0.0;
  for (int64_t i = 0; i < count; ++i) {
    const double product = static_cast<double>(a[i]) * static_cast<double>(b[i * stride]);
    sum.value += product;
    magnitude += std::abs(product);
  }
  sum.tolerance = sum_error(count + 2) * magnitude;  // 2: a factor, and it is rounded itself
  return sum;
}

struct Shape {
  int64_t positions, d;
};

// Calls `check(shape, poison, random)` for 1 to 300 positions and every d.
template <class Check>
int64_t for_shapes(Sizes sizes, const Check& check) {
  Random random(4);
  int64_t cases = 0;
  for (const int64_t d : kDims) {
    for (int64_t positions = 1; positions <= 300; positions += sizes == Sizes::kAll ? 1 : 13) {
      if (positions > 70 && positions % 10 != 0 && sizes == Sizes::kAll) continue;
      check(Shape{positions, d}, cases % 8 == 0 ? kPoisons[1 + random.below(2)] : Poison::kNone,
            random);
      ++cases;
    }
  }
  return cases;
}

std::string describe(const Shape& shape, Poison poison) {
  return "positions " + std::to_string(shape.positions) + ", d " + std::to_string(shape.d) +
         poison_name(poison);
}

}  // namespace

int64_t check_dot(const Kernels& table, Sizes sizes) {
  Random random(5);
  int64_t cases = 0;
  for (int64_t width = 1; width <= (sizes == Sizes::kAll ? 400 : 80); ++width) {
    const std::vector<float> a = random_floats(random, width);
    std::vector<float> b = random_floats(random, width);
    poison_one(random, width % 8 == 0 ? Poison::kNan : Poison::kNone, b);
    const Sum sum = exact_sum(a.data(), b.data(), width, 1);
    expect_near("width " + std::to_string(width), {table.dot(a.data(), b.data(), width)},
                {sum.value}, {sum.tolerance});
    ++cases;
  }
  return cases;
}

int64_t check_attention_scores(const Kernels& table, Sizes sizes) {
  return for_shapes(sizes, [&](const Shape& shape, Poison poison, Random& random) {
    const std::vector<float> q = random_floats(random, shape.d);
    std::vector<float> k = random_floats(random, shape.positions * shape.d);
    poison_one(random, poison, k);
    const float factor = uniform(random, 0.05f, 0.5f);
    std::vector<double> expected, tolerance;
    for (int64_t n = 0; n < shape.positions; ++n) {
      const Sum sum = exact_sum(q.data(), k.data() + n * shape.d, shape.d, 1);
      expected.push_back(static_cast<double>(factor) * sum.value);
      tolerance.push_back(static_cast<double>(factor) * sum.tolerance);
    }
    std::vector<float> actual(size_of(shape.positions));
    table.attention_scores(q.data(), k.data(), shape.positions, shape.d, factor, actual.data());
    expect_near(describe(shape, poison), actual, expected, tolerance);
  });
}

int64_t check_attention_values(const Kernels& table, Sizes sizes) {
  return for_shapes(sizes, [&](const Shape& shape, Poison poison, Random& random) {
    std::vector<float> p(size_of(shape.positions));
    for (float& weight : p) weight = uniform(random, 0.0f, 1.0f);
    std::vector<float> v = random_floats(random, shape.positions * shape.d);
    poison_one(random, poison, v);
    std::vector<double> expected, tolerance;
    for (int64_t i = 0; i < shape.d; ++i) {
      const Sum sum = exact_sum(p.data(), v.data() + i, shape.positions, shape.d);
      expected.push_back(sum.value);
      tolerance.push_back(sum.tolerance);
    }
    std::vector<float> actual(size_of(shape.d));
    table.attention_values(p.data(), v.data(), shape.positions, shape.d, actual.data());
    expect_near(describe(shape, poison), actual, expected, tolerance);
  });
}

}  // namespace mobilemoe::check
