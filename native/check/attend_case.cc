#include "attend_case.h"

#include <algorithm>
#include <cmath>

namespace mobilemoe::check {
namespace {

constexpr double kLevels = 16383.0;

size_t at(int64_t index) { return static_cast<size_t>(index); }

int32_t key_at(const AttendCase& c, int64_t n, int64_t i) {
  return c.keys[at(n / kKeyLanes * kKeyLanes * c.d + i / 4 * 4 * kKeyLanes + n % kKeyLanes * 4 +
                   i % 4)];
}

int32_t value_at(const AttendCase& c, int64_t n, int64_t i) {
  return c.values[at((n / 4 * c.d + i) * 4 + n % 4)];
}

// The scores are floats by contract: an exact integer times one product.
std::vector<float> scores(const AttendCase& c, int64_t row) {
  std::vector<float> s;
  for (int64_t n = 0; n < c.seen[at(row)]; ++n) {
    int32_t sum = 0;
    for (int64_t i = 0; i < c.d; ++i) {
      sum += (128 * c.high[at(row * c.d + i)] + c.low[at(row * c.d + i)]) * key_at(c, n, i);
    }
    s.push_back(static_cast<float>(sum) * (c.key_scales[at(n)] * c.query_scales[at(row)]));
  }
  return s;
}

// One block of positions: integers u with their scale, and which of them may round either way.
struct Block {
  std::vector<double> integers;
  std::vector<bool> near_tie;
  double scale = 0.0;
};

Block quantize_block(const AttendCase& c, const std::vector<double>& p, int64_t first,
                     int64_t count, double error) {
  std::vector<double> w;
  double largest = 0.0;
  for (int64_t n = first; n < first + count; ++n) {
    w.push_back(p[at(n)] * static_cast<double>(c.value_scales[at(n)]));
    largest = std::max(largest, std::abs(w.back()));
  }
  Block block{{}, {}, largest / kLevels};
  for (const double weight : w) {
    const double u = largest > 0.0 ? weight / largest * kLevels : 0.0;
    const double from_tie = std::abs(std::abs(u - std::trunc(u)) - 0.5);
    block.integers.push_back(std::nearbyint(u));
    block.near_tie.push_back(from_tie <= 2.0 * error * std::abs(u));
  }
  return block;
}

}  // namespace

Int8Cache AttendCase::cache() const {
  return {keys.data(), values.data(), key_scales.data(), value_scales.data()};
}

Int8Queries AttendCase::queries(int64_t first, int64_t count) const {
  return {high.data() + first * d, low.data() + first * d, query_scales.data() + first,
          seen.data() + first, count, d};
}

std::vector<float> AttendCase::run(const Kernels& table, int64_t first, int64_t count) const {
  std::vector<std::vector<float>> rows(at(count), std::vector<float>(at(d), 777.0f));
  std::vector<float*> out;
  for (std::vector<float>& row : rows) out.push_back(row.data());
  table.attend_int8(cache(), queries(first, count), out.data());
  std::vector<float> all;
  for (const std::vector<float>& row : rows) all.insert(all.end(), row.begin(), row.end());
  return all;
}

AttendCase random_attend(Random& random, int64_t d, int64_t positions, int64_t rows) {
  const int64_t stored = (positions + kPositionBlock - 1) / kPositionBlock * kPositionBlock;
  AttendCase c{d,
               positions,
               random_bytes(random, stored * d, 127),
               random_bytes(random, stored * d, 127),
               random_bytes(random, rows * d, 126),
               random_bytes(random, rows * d, 64),
               {},
               {},
               {},
               {}};
  for (int64_t n = 0; n < stored; ++n) {
    const bool used = n < positions;
    c.key_scales.push_back(used ? uniform(random, 0.0f, 0.02f) : poison_float(Poison::kNan));
    c.value_scales.push_back(used ? uniform(random, 0.0f, 0.02f) : poison_float(Poison::kNan));
  }
  // From flat to peaked: scores of 0.1 to 30 or so.
  const float size = random.one_in(3) ? 3e-3f : random.one_in(2) ? 3e-4f : 1e-5f;
  for (int64_t r = 0; r < rows; ++r) {
    c.query_scales.push_back(uniform(random, 0.5f, 1.0f) * size / std::sqrt(static_cast<float>(d)));
    c.seen.push_back(1 + static_cast<int64_t>(random.below(at(positions))));
  }
  random.pick(c.seen) = positions;
  return c;
}

ExactRow exact_row(const AttendCase& c, int64_t row) {
  const std::vector<float> s = scores(c, row);
  const auto [low, high] = std::minmax_element(s.begin(), s.end());
  const auto largest = static_cast<double>(*high);
  const auto count = static_cast<int64_t>(s.size());
  const int64_t blocks = (count + kPositionBlock - 1) / kPositionBlock;
  // Of a weight, as a share: differences of scores and their exponentials, once per block, and
  // the additions of a sum.
  const double range = largest - static_cast<double>(*low);
  const double error = (2.0 * range + 24.0 * static_cast<double>(blocks) + 80.0) * 0x1p-24;
  std::vector<double> p;
  double l = 0.0;
  for (const float score : s) l += p.emplace_back(std::exp(static_cast<double>(score) - largest));
  ExactRow result{std::vector<double>(at(c.d)), std::vector<double>(at(c.d))};
  for (int64_t first = 0; first < count; first += kPositionBlock) {
    const int64_t some = std::min(kPositionBlock, count - first);
    const Block block = quantize_block(c, p, first, some, error);
    for (int64_t n = 0; n < some; ++n) {
      for (int64_t i = 0; i < c.d; ++i) {
        const double v = block.scale / l * static_cast<double>(value_at(c, first + n, i));
        result.out[at(i)] += block.integers[at(n)] * v;
        const double either = block.near_tie[at(n)] ? 1.0 : 0.0;
        // 1e-20: of weights that underflow in floats.
        result.tolerance[at(i)] +=
            std::abs(v) * (2.0 * error * std::abs(block.integers[at(n)]) + either) + 1e-20;
      }
    }
  }
  return result;
}

}  // namespace mobilemoe::check
