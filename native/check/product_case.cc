#include "product_case.h"

#include "compare.h"

namespace mobilemoe::check {
namespace {

constexpr float kUntouched = 777.0f;

std::vector<float> whole(const Kernels& table, const ProductCase& product) {
  std::vector<float> y(static_cast<size_t>(product.tokens * product.outputs), kUntouched);
  product.call(table, 0, product.tokens, 0, product.outputs / product.unit, y.data());
  return y;
}

void check_range(const Kernels& table, const ProductCase& product, Random& random,
                 const std::vector<float>& y) {
  const int64_t units = product.outputs / product.unit;
  const auto begin = static_cast<int64_t>(random.below(static_cast<size_t>(units)));
  const size_t rest = static_cast<size_t>(units - begin);
  const int64_t end = begin + 1 + static_cast<int64_t>(random.below(rest));
  std::vector<float> actual(y.size(), kUntouched), expected(y.size(), kUntouched);
  product.call(table, 0, product.tokens, begin, end, actual.data());
  for (int64_t t = 0; t < product.tokens; ++t) {
    for (int64_t o = begin * product.unit; o < end * product.unit; ++o) {
      const auto at = static_cast<size_t>(t * product.outputs + o);
      expected[at] = y[at];
    }
  }
  expect_same(product.what + ", units " + std::to_string(begin) + " to " + std::to_string(end),
              actual, expected);
}

void check_alone(const Kernels& table, const ProductCase& product, const std::vector<float>& y) {
  std::vector<float> actual(y.size(), kUntouched);
  for (int64_t t = 0; t < product.tokens; ++t) {
    std::vector<float> row(static_cast<size_t>(product.outputs), kUntouched);
    product.call(table, t, 1, 0, product.outputs / product.unit, row.data());
    for (size_t o = 0; o < row.size(); ++o) {
      actual[static_cast<size_t>(t * product.outputs) + o] = row[o];
    }
  }
  expect_same(product.what + ", one token alone", actual, y);
}

}  // namespace

double sum_error(int64_t terms) {
  const double n = static_cast<double>(terms) * 0x1p-24;
  return n / (1.0 - n);
}

void check_product(const Kernels& table, const ProductCase& product, Random& random) {
  const std::vector<float> expected = whole(kPortableKernels, product);
  const std::vector<float> actual = whole(table, product);
  if (product.tolerance_TO.empty()) {
    expect_same(product.what, actual, expected);
  } else {
    const std::vector<double> exact(expected.begin(), expected.end());
    expect_near(product.what, actual, exact, product.tolerance_TO);
  }
  check_range(table, product, random, actual);
  if (product.tokens > 1) check_alone(table, product, actual);
}

}  // namespace mobilemoe::check
