// What a linear layer reads: rows of floats, and in int8 mode their quantised form.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels.h"
#include "thread_pool.h"

namespace mobilemoe {

enum class ActivationFormat { kFp32, kInt8 };

struct Activations {
  ActivationFormat format = ActivationFormat::kFp32;
  const float* x_TI = nullptr;
  QuantizedRows quantized;  // filled for kInt8 only
  int64_t tokens = 0;
};

// Room for the quantised form of up to `tokens` rows of up to `width` floats.
//
// With two `terms` a row is the sum of two int8 rows, of which the second holds what the first
// rounded away (about 15 bits): rows T to 2T of the view are the second terms of rows 0 to T,
// and the caller adds the two outputs. In fp32 format there is always one term.
class ActivationBuffer {
 public:
  ActivationBuffer(ActivationFormat format, int64_t tokens, int64_t width, int terms = 1);

  // The view holds until the next call and as long as `x_TI`; its `tokens` counts all terms.
  Activations prepare(ThreadPool& pool, const Kernels& kernels, const float* x_TI, int64_t tokens,
                      int64_t width);

  int terms() const { return terms_; }

 private:
  void quantize(const Kernels& kernels, const float* x_I, int64_t row, int64_t width);
  void remainder(const float* x_I, int64_t row, int64_t width, float* rest_I) const;

  ActivationFormat format_;
  int terms_;
  std::vector<float> rest_TI_;  // what the first term rounded away
  std::vector<int8_t> values_;
  std::vector<float> scales_;
  std::vector<int32_t> sums_;
};

}  // namespace mobilemoe
