// Random matrices and activations of exactly their size, so that a sanitizer sees a read beyond.
#pragma once

#include <string>
#include <vector>

#include "fuzz/random.h"
#include "kernels.h"

namespace mobilemoe::check {

using fuzz::Random;

float uniform(Random& random, float low, float high);
std::vector<float> random_floats(Random& random, int64_t count);
std::vector<int8_t> random_bytes(Random& random, int64_t count, int32_t limit);

// A matrix and its bytes, which begin at an odd address.
struct Int4Data {
  std::vector<uint8_t> qweight, scale;
  Int4Matrix matrix;

  void set_scale(int64_t row, int64_t group, uint16_t half);
};
struct Bf16Data {
  std::vector<uint8_t> bits;
  Bf16Matrix matrix;
};

// Scales are of either sign, a few of them 0 or subnormal.
Int4Data random_int4(Random& random, int64_t rows, int64_t columns);
Bf16Data random_bf16(Random& random, int64_t rows, int64_t columns);

double value_at(const Int4Matrix& w, int64_t row, int64_t column);
double value_at(const Bf16Matrix& w, int64_t row, int64_t column);

constexpr uint16_t kHalfInfinity = 0x7C00u, kHalfNan = 0x7E00u;

// What may be wrong with a case's numbers.
enum class Poison { kNone, kNan, kInfinity };
constexpr Poison kPoisons[] = {Poison::kNone, Poison::kNan, Poison::kInfinity};

float poison_float(Poison poison);
uint16_t poison_half(Poison poison);
const char* poison_name(Poison poison);

// Replaces one element of x, chosen at random.
void poison_one(Random& random, Poison poison, std::vector<float>& x);

// Activations x_TI as the portable functions prepare them.
struct QuantizedData {
  std::vector<int8_t> values;
  std::vector<float> scales;
  std::vector<int32_t> sums;
  int64_t width, stride;

  // The rows from `first` on.
  QuantizedRows rows(int64_t first) const;
};
struct ScaledData {
  std::vector<float> values, scales;
  int64_t width;

  ScaledRows rows() const { return {values.data(), scales.data(), width}; }
};

QuantizedData quantize(const std::vector<float>& x_TI, int64_t width);
ScaledData scale(const std::vector<float>& x_TI, int64_t width);

}  // namespace mobilemoe::check
