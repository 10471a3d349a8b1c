#include "compare.h"

#include <bit>
#include <cmath>
#include <cstdio>
#include <limits>

namespace mobilemoe::check {
namespace {

constexpr double kInfinite = std::numeric_limits<double>::infinity();

// The element that is furthest off, in units of what it may be off.
struct Worst {
  size_t index = 0;
  double excess = 0.0;

  void offer(size_t at, double size) {
    if (size > excess) *this = {at, size};
  }
};

[[noreturn]] void fail(const std::string& what, size_t index, double expected, double actual) {
  char text[160];
  std::snprintf(text, sizeof text, ": worst at index %zu: expected %.9g, actual %.9g", index,
                expected, actual);
  throw Mismatch(what + text);
}

bool same(float a, float b) {
  return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b) ||
         (std::isnan(a) && std::isnan(b));
}
bool same(int32_t a, int32_t b) { return a == b; }

template <class T>
void compare(const std::string& what, const std::vector<T>& actual,
             const std::vector<T>& expected) {
  if (actual.size() != expected.size()) throw Mismatch(what + ": the sizes differ");
  Worst worst;
  for (size_t i = 0; i < actual.size(); ++i) {
    if (same(actual[i], expected[i])) continue;
    const double off = std::abs(static_cast<double>(actual[i]) - static_cast<double>(expected[i]));
    // Zeros of different sign are not the same either.
    worst.offer(i, off > 0.0 ? off : off == 0.0 ? std::numeric_limits<double>::min() : kInfinite);
  }
  if (worst.excess > 0.0) fail(what, worst.index, expected[worst.index], actual[worst.index]);
}

}  // namespace

void expect_same(const std::string& what, const std::vector<float>& actual,
                 const std::vector<float>& expected) {
  compare(what, actual, expected);
}

void expect_same(const std::string& what, const std::vector<int8_t>& actual,
                 const std::vector<int8_t>& expected) {
  compare(what, actual, expected);
}

void expect_same(const std::string& what, const std::vector<int32_t>& actual,
                 const std::vector<int32_t>& expected) {
  compare(what, actual, expected);
}

void expect_near(const std::string& what, const std::vector<float>& actual,
                 const std::vector<double>& expected, const std::vector<double>& tolerance) {
  Worst worst;
  for (size_t i = 0; i < actual.size(); ++i) {
    if (std::isfinite(expected[i]) != std::isfinite(actual[i])) worst.offer(i, kInfinite);
    if (!std::isfinite(expected[i]) || !std::isfinite(actual[i])) continue;
    const double off = std::abs(static_cast<double>(actual[i]) - expected[i]);
    if (!(off <= tolerance[i])) worst.offer(i, tolerance[i] > 0.0 ? off / tolerance[i] : kInfinite);
  }
  if (worst.excess > 0.0) fail(what, worst.index, expected[worst.index], actual[worst.index]);
}

}  // namespace mobilemoe::check
