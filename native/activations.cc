#include "activations.h"

namespace mobilemoe {
namespace {

int64_t scale_stride(int64_t width) {
  const int64_t blocks = width / kGroupSize;
  return (blocks + kScalePadding - 1) / kScalePadding * kScalePadding;
}

}  // namespace

ActivationBuffer::ActivationBuffer(ActivationFormat format, int64_t tokens, int64_t width,
                                   int terms)
    : format_(format), terms_(format == ActivationFormat::kInt8 ? terms : 1) {
  if (format == ActivationFormat::kFp32) return;
  values_.resize(static_cast<size_t>(terms * tokens * width));
  scales_.resize(static_cast<size_t>(terms * tokens * scale_stride(width)));
  sums_.resize(scales_.size());
  if (terms == 2) rest_TI_.resize(static_cast<size_t>(tokens * width));
}

Activations ActivationBuffer::prepare(ThreadPool& pool, const Kernels& kernels, const float* x_TI,
                                      int64_t tokens, int64_t width) {
  Activations out{format_, x_TI, {}, terms_ * tokens};
  if (format_ == ActivationFormat::kFp32) return out;
  pool.for_tokens(tokens, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      quantize(kernels, x_TI + t * width, t, width);
      if (terms_ == 1) continue;
      float* rest_I = rest_TI_.data() + t * width;
      remainder(x_TI + t * width, t, width, rest_I);
      quantize(kernels, rest_I, tokens + t, width);
    }
  });
  out.quantized = {values_.data(), scales_.data(), sums_.data(), width, scale_stride(width)};
  return out;
}

void ActivationBuffer::quantize(const Kernels& kernels, const float* x_I, int64_t row,
                                int64_t width) {
  const int64_t stride = scale_stride(width);
  float* scales = scales_.data() + row * stride;
  int32_t* sums = sums_.data() + row * stride;
  kernels.quantize_row(x_I, width, values_.data() + row * width, scales, sums);
  for (int64_t b = width / kGroupSize; b < stride; ++b) scales[b] = 0.0f, sums[b] = 0;
}

// rest = x - values * scales of `row`, in the natural order.
void ActivationBuffer::remainder(const float* x_I, int64_t row, int64_t width,
                                 float* rest_I) const {
  const float* scales = scales_.data() + row * scale_stride(width);
  for (int64_t first = 0; first < width; first += kGroupSize) {
    const int8_t* values = values_.data() + row * width + first;
    const float scale = scales[first / kGroupSize];
    for (int64_t i = 0; i < kGroupSize; ++i) {
      const int8_t value = values[i / 2 + (i % 2) * (kGroupSize / 2)];  // even elements first
      rest_I[first + i] = x_I[first + i] - static_cast<float>(value) * scale;
    }
  }
}

}  // namespace mobilemoe
