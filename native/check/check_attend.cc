// Attention over an int8 cache: exponentials may differ in their last bits, and so the sums.
#include <string>

#include "attend_case.h"
#include "checks.h"
#include "compare.h"

namespace mobilemoe::check {
namespace {

std::string describe(const AttendCase& c, const std::string& more) {
  return "positions " + std::to_string(c.positions) + ", d " + std::to_string(c.d) + ", rows " +
         std::to_string(c.rows()) + more;
}

std::vector<double> doubles(const std::vector<float>& x) { return {x.begin(), x.end()}; }

std::vector<float> row_of(const std::vector<float>& out, const AttendCase& c, int64_t row) {
  const auto begin = out.begin() + row * c.d;
  return {begin, begin + c.d};
}

// Every row against the formula in doubles, and alone.
void check_rows(const Kernels& table, const AttendCase& c) {
  const std::vector<float> out = c.run(table, 0, c.rows());
  for (int64_t row = 0; row < c.rows(); ++row) {
    const std::string name = describe(c, ", row " + std::to_string(row));
    const ExactRow exact = exact_row(c, row);
    expect_near(name, row_of(out, c, row), exact.out, exact.tolerance);
    expect_same(name + " alone", c.run(table, row, 1), row_of(out, c, row));
  }
}

// One number of the cache or the queries goes bad: what sees it is as the portable function has
// it, finite or not, and what does not see it keeps its bits.
void check_poisoned(const Kernels& table, AttendCase c, Poison poison, Random& random) {
  const std::vector<float> before = c.run(table, 0, c.rows());
  const auto n = static_cast<int64_t>(random.below(static_cast<size_t>(c.positions)));
  std::vector<float>& scales = random.one_in(2) ? c.key_scales : c.value_scales;
  scales[static_cast<size_t>(n)] = poison_float(poison);
  const std::vector<float> out = c.run(table, 0, c.rows());
  const std::vector<float> expected = c.run(kPortableKernels, 0, c.rows());
  for (int64_t row = 0; row < c.rows(); ++row) {
    const std::string name = describe(c, ", row " + std::to_string(row) + poison_name(poison));
    if (c.seen[static_cast<size_t>(row)] <= n) {
      expect_same(name + " out of sight", row_of(out, c, row), row_of(before, c, row));
    } else if (poison == Poison::kNan) {
      expect_near(name, row_of(out, c, row), doubles(row_of(expected, c, row)),
                  std::vector<double>(static_cast<size_t>(c.d)));
    }
  }
  c.query_scales[0] = poison_float(poison);
  c.run(table, 0, c.rows());
}

// Positions that the cache holds, densely where a block begins and ends.
bool is_size(int64_t positions, Sizes sizes) {
  const int64_t in_block = positions % kPositionBlock;
  if (sizes == Sizes::kFew) return in_block <= 1 || positions % 37 == 5;
  return positions <= 70 || in_block <= 1 || in_block == 63 || positions % 10 == 0;
}

}  // namespace

int64_t check_attend_int8(const Kernels& table, Sizes sizes) {
  constexpr int64_t kDims[] = {16, 32, 48, 64, 128};
  constexpr int64_t kRows[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 32};
  Random random(6);
  int64_t cases = 0;
  for (int64_t positions = 1; positions <= 300; ++positions) {
    if (!is_size(positions, sizes)) continue;
    for (const int64_t d : kDims) {
      const int64_t rows = kRows[random.below(d == 128 ? 6 : 11)];
      const AttendCase c = random_attend(random, d, positions, rows);
      check_rows(table, c);
      if (cases % 4 == 0) check_poisoned(table, c, kPoisons[1 + random.below(2)], random);
      ++cases;
    }
  }
  return cases;
}

}  // namespace mobilemoe::check
