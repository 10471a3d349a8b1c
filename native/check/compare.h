// Comparisons that say where two results differ most.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace mobilemoe::check {

// A kernel that does not do what its contract says.
struct Mismatch : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// The same bits, where one NaN is as good as another; `what` names the case in the message.
// Throws Mismatch.
void expect_same(const std::string& what, const std::vector<float>& actual,
                 const std::vector<float>& expected);
void expect_same(const std::string& what, const std::vector<int8_t>& actual,
                 const std::vector<int8_t>& expected);
void expect_same(const std::string& what, const std::vector<int32_t>& actual,
                 const std::vector<int32_t>& expected);

// |actual - expected| <= tolerance, element by element; where `expected` is not finite, neither
// is `actual`. Throws Mismatch.
void expect_near(const std::string& what, const std::vector<float>& actual,
                 const std::vector<double>& expected, const std::vector<double>& tolerance);

}  // namespace mobilemoe::check
