#include "inputs.h"

#include <bit>
#include <cstring>
#include <limits>

namespace mobilemoe::check {
namespace {

// `count` random bytes from the second byte of a vector on.
std::vector<uint8_t> odd_bytes(Random& random, int64_t count) {
  std::vector<uint8_t> bytes(static_cast<size_t>(count) + 1);
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random.next());
  return bytes;
}

void store_u16(uint16_t value, uint8_t* at) { std::memcpy(at, &value, sizeof value); }

uint16_t random_half(Random& random) {
  const auto sign = static_cast<uint16_t>(random.one_in(8) ? 0x8000u : 0u);
  if (random.one_in(16)) return static_cast<uint16_t>(sign | (random.one_in(2) ? 0u : 3u));
  const size_t exponent = 5 + random.below(6), mantissa = random.below(1024);
  return static_cast<uint16_t>(sign | exponent << 10 | mantissa);
}

}  // namespace

float uniform(Random& random, float low, float high) {
  const auto part = static_cast<float>(random.below(1u << 24)) * 0x1p-24f;
  return low + (high - low) * part;
}

std::vector<float> random_floats(Random& random, int64_t count) {
  std::vector<float> x(static_cast<size_t>(count));
  for (float& value : x) {
    const float size = random.one_in(32) ? 8.0f : 1.0f;  // outliers, as activations have them
    value = random.one_in(16) ? 0.0f : uniform(random, -size, size);
  }
  return x;
}

std::vector<int8_t> random_bytes(Random& random, int64_t count, int32_t limit) {
  std::vector<int8_t> bytes(static_cast<size_t>(count));
  const auto choices = static_cast<size_t>(2 * limit + 1);
  for (int8_t& byte : bytes) {
    byte = static_cast<int8_t>(static_cast<int32_t>(random.below(choices)) - limit);
  }
  return bytes;
}

void Int4Data::set_scale(int64_t row, int64_t group, uint16_t half) {
  store_u16(half, scale.data() + 1 + 2 * (row * (matrix.columns / kGroupSize) + group));
}

Int4Data random_int4(Random& random, int64_t rows, int64_t columns) {
  Int4Data data{odd_bytes(random, rows * columns / 2),
                odd_bytes(random, rows * (columns / kGroupSize) * 2), {}};
  data.matrix = {data.qweight.data() + 1, data.scale.data() + 1, rows, columns};
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t group = 0; group < columns / kGroupSize; ++group) {
      data.set_scale(row, group, random_half(random));
    }
  }
  return data;
}

Bf16Data random_bf16(Random& random, int64_t rows, int64_t columns) {
  Bf16Data data{odd_bytes(random, rows * columns * 2), {}};
  data.matrix = {data.bits.data() + 1, rows, columns};
  for (int64_t i = 0; i < rows * columns; ++i) {
    const uint32_t bits = std::bit_cast<uint32_t>(uniform(random, -1.0f, 1.0f));
    store_u16(static_cast<uint16_t>(bits >> 16), data.bits.data() + 1 + 2 * i);
  }
  return data;
}

double value_at(const Int4Matrix& w, int64_t row, int64_t column) {
  const uint8_t byte = row_bytes(w, row)[column / 2];
  const auto nibble = static_cast<uint8_t>(column % 2 == 0 ? byte & 15 : byte >> 4);
  return static_cast<double>(nibble_value(nibble)) *
         static_cast<double>(half_at(row_scales(w, row), column / kGroupSize));
}

double value_at(const Bf16Matrix& w, int64_t row, int64_t column) {
  return static_cast<double>(bfloat16_at(row_bits(w, row), column));
}

float poison_float(Poison poison) {
  return poison == Poison::kNan ? std::numeric_limits<float>::quiet_NaN()
                                : std::numeric_limits<float>::infinity();
}

uint16_t poison_half(Poison poison) { return poison == Poison::kNan ? kHalfNan : kHalfInfinity; }

const char* poison_name(Poison poison) {
  if (poison == Poison::kNone) return "";
  return poison == Poison::kNan ? ", with NaN" : ", with an infinity";
}

void poison_one(Random& random, Poison poison, std::vector<float>& x) {
  if (poison != Poison::kNone) random.pick(x) = poison_float(poison);
}

QuantizedRows QuantizedData::rows(int64_t first) const {
  return {values.data() + first * width, scales.data() + first * stride,
          sums.data() + first * stride, width, stride};
}

QuantizedData quantize(const std::vector<float>& x_TI, int64_t width) {
  const int64_t tokens = static_cast<int64_t>(x_TI.size()) / width;
  const int64_t blocks = width / kGroupSize;
  const int64_t stride = (blocks + kScalePadding - 1) / kScalePadding * kScalePadding;
  QuantizedData data{std::vector<int8_t>(x_TI.size()),
                     std::vector<float>(static_cast<size_t>(tokens * stride)),
                     std::vector<int32_t>(static_cast<size_t>(tokens * stride)), width, stride};
  for (int64_t t = 0; t < tokens; ++t) {
    kPortableKernels.quantize_row(x_TI.data() + t * width, width, data.values.data() + t * width,
                                  data.scales.data() + t * stride, data.sums.data() + t * stride,
                                  nullptr);
  }
  return data;
}

ScaledData scale(const std::vector<float>& x_TI, int64_t width) {
  ScaledData data{std::vector<float>(x_TI.size()), std::vector<float>(x_TI.size() / kGroupSize),
                  width};
  const int64_t tokens = static_cast<int64_t>(x_TI.size()) / width;
  for (int64_t t = 0; t < tokens; ++t) {
    kPortableKernels.scale_row(x_TI.data() + t * width, width, data.values.data() + t * width,
                               data.scales.data() + t * (width / kGroupSize));
  }
  return data;
}

}  // namespace mobilemoe::check
