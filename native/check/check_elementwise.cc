// Functions of each element alone: silu_multiply and widen_fp16.
#include <algorithm>
#include <cmath>
#include <string>

#include "checks.h"
#include "compare.h"
#include "exp_inline.h"
#include "inputs.h"

namespace mobilemoe::check {
namespace {

// Of any size and sign, up to where the exponential ends.
std::vector<float> gates(Random& random, int64_t width) {
  constexpr float kSizes[] = {0.01f, 1.0f, 10.0f, 100.0f, 1e30f};
  std::vector<float> x(static_cast<size_t>(width));
  for (float& value : x) {
    const float size = random.pick(kSizes);
    value = uniform(random, -size, size);
  }
  return x;
}

// silu(gate) * up and what floats may be off by: two units in the last place of each of a few
// operations, and five of the exponential, which is cut off at both ends.
void check_silu(const std::string& what, const std::vector<float>& gate,
                const std::vector<float>& up, const std::vector<float>& actual) {
  std::vector<double> expected, tolerance;
  for (size_t i = 0; i < gate.size(); ++i) {
    const auto g = static_cast<double>(gate[i]), u = static_cast<double>(up[i]);
    const double high = std::isnan(g) ? g : std::min(-g, static_cast<double>(kExpHigh));
    const double value = g / (1.0 + std::exp(high)) * u;
    expected.push_back(value);
    tolerance.push_back(std::abs(value) * 16.0 * 0x1p-24 + std::abs(u) * 1e-37);
  }
  expect_near(what, actual, expected, tolerance);
}

}  // namespace

int64_t check_silu_multiply(const Kernels& table, Sizes sizes) {
  Random random(10);
  int64_t cases = 0;
  for (int64_t width = 1; width <= (sizes == Sizes::kAll ? 400 : 80); ++width) {
    std::vector<float> gate = gates(random, width), up = random_floats(random, width);
    const Poison poison = width % 8 == 0 ? kPoisons[1 + random.below(2)] : Poison::kNone;
    poison_one(random, poison, random.one_in(2) ? gate : up);
    std::vector<float> whole(gate.size());
    table.silu_multiply(gate.data(), up.data(), width, whole.data());
    const std::string what = "width " + std::to_string(width) + poison_name(poison);
    check_silu(what, gate, up, whole);
    // In place, and in two parts: the same bits wherever an element lies.
    const auto middle = static_cast<int64_t>(random.below(static_cast<size_t>(width) + 1));
    std::vector<float> parts = gate;
    const auto part = [&](int64_t first, int64_t count) {
      if (count == 0) return;
      const std::vector<float> factor(up.begin() + first, up.begin() + first + count);
      table.silu_multiply(parts.data() + first, factor.data(), count, parts.data() + first);
    };
    part(0, middle);
    part(middle, width - middle);
    expect_same(what + ", in two parts", parts, whole);
    ++cases;
  }
  return cases;
}

int64_t check_widen_fp16(const Kernels& table, Sizes) {
  constexpr uint32_t kHalves = 1u << 16;
  int64_t cases = 0;
  size_t width = 1;
  for (uint32_t first = 0; first < kHalves; first += static_cast<uint32_t>(width)) {
    width = std::min<size_t>(width % 67 + 1, kHalves - first);
    std::vector<uint16_t> halves;
    std::vector<float> expected;
    for (uint32_t half = first; half < first + width; ++half) {
      halves.push_back(static_cast<uint16_t>(half));
      expected.push_back(half_to_float(static_cast<uint16_t>(half)));
    }
    std::vector<float> actual(width);
    table.widen_fp16(halves.data(), static_cast<int64_t>(width), actual.data());
    expect_same("halves from " + std::to_string(first) + " on", actual, expected);
    ++cases;
  }
  return cases;
}

}  // namespace mobilemoe::check
