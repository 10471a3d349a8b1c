// What a linear layer and a routed expert read: rows of floats, and in int8 mode their prepared
// form.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels.h"

namespace mobilemoe {

enum class ActivationFormat { kFp32, kInt8 };

struct Activations {
  ActivationFormat format = ActivationFormat::kFp32;
  const float* x_TI = nullptr;
  QuantizedRows quantized;  // filled for kInt8 only
  int64_t tokens = 0;
};

// Room for the quantised form of up to `tokens` rows of `width` floats.
//
// With two `terms` a row is the sum of two int8 rows, of which the second holds what the first
// rounded away (about 15 bits): rows T to 2T of the view are the second terms of rows 0 to T,
// and the caller adds the two outputs. In fp32 format there is always one term.
class ActivationBuffer {
 public:
  ActivationBuffer(ActivationFormat format, int64_t tokens, int64_t width, int terms = 1);

  // Quantises the blocks begin to end of row `row` of x_TI, of `tokens` rows; nothing in fp32.
  void prepare(const Kernels& kernels, const float* x_TI, int64_t tokens, int64_t row,
               int64_t begin, int64_t end);
  // All rows, prepared before; its `tokens` counts all terms.
  Activations view(const float* x_TI, int64_t tokens) const;

  int64_t blocks() const { return width_ / kGroupSize; }
  int terms() const { return terms_; }

 private:
  void quantize(const Kernels& kernels, const float* x, int64_t row, int64_t begin, int64_t end,
                float* rest);

  ActivationFormat format_;
  int terms_;
  int64_t width_, stride_;
  std::vector<float> rest_TI_;  // what the first term rounded away
  std::vector<int8_t> values_;
  std::vector<float> scales_;   // padding stays 0, as of the sums
  std::vector<int32_t> sums_;
};

// The same for the integer experts (see ScaledRows); empty in fp32 format.
class ScaledBuffer {
 public:
  ScaledBuffer(ActivationFormat format, int64_t rows, int64_t width);

  // Prepares the blocks begin to end of row `row`, whose floats are x_I.
  void prepare(const Kernels& kernels, const float* x_I, int64_t row, int64_t begin, int64_t end);
  ScaledRows view() const { return {values_.data(), scales_.data(), width_}; }

 private:
  ActivationFormat format_;
  int64_t width_;
  std::vector<float> values_, scales_;
};

}  // namespace mobilemoe
