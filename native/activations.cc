#include "activations.h"

namespace mobilemoe {
namespace {

size_t size_of(int64_t a, int64_t b) { return static_cast<size_t>(a) * static_cast<size_t>(b); }

}  // namespace

ActivationBuffer::ActivationBuffer(ActivationFormat format, int64_t tokens, int64_t width,
                                   int terms)
    : format_(format),
      terms_(format == ActivationFormat::kInt8 ? terms : 1),
      width_(width),
      stride_((width / kGroupSize + kScalePadding - 1) / kScalePadding * kScalePadding) {
  if (format == ActivationFormat::kFp32) return;
  values_.resize(size_of(terms * tokens, width));
  scales_.resize(size_of(terms * tokens, stride_));
  sums_.resize(scales_.size());
  if (terms == 2) rest_TI_.resize(size_of(tokens, width));
}

void ActivationBuffer::prepare(const Kernels& kernels, const float* x_TI, int64_t tokens,
                               int64_t row, int64_t begin, int64_t end) {
  if (format_ == ActivationFormat::kFp32) return;
  const float* x = x_TI + row * width_ + begin * kGroupSize;
  float* rest = terms_ == 1 ? nullptr : rest_TI_.data() + row * width_ + begin * kGroupSize;
  quantize(kernels, x, row, begin, end, rest);
  if (terms_ == 2) quantize(kernels, rest, tokens + row, begin, end, nullptr);
}

Activations ActivationBuffer::view(const float* x_TI, int64_t tokens) const {
  Activations out{format_, x_TI, {}, terms_ * tokens};
  if (format_ == ActivationFormat::kInt8) {
    out.quantized = {values_.data(), scales_.data(), sums_.data(), width_, stride_};
  }
  return out;
}

void ActivationBuffer::quantize(const Kernels& kernels, const float* x, int64_t row,
                                int64_t begin, int64_t end, float* rest) {
  kernels.quantize_row(x, (end - begin) * kGroupSize,
                       values_.data() + row * width_ + begin * kGroupSize,
                       scales_.data() + row * stride_ + begin,
                       sums_.data() + row * stride_ + begin, rest);
}

ScaledBuffer::ScaledBuffer(ActivationFormat format, int64_t rows, int64_t width)
    : format_(format), width_(width) {
  if (format == ActivationFormat::kFp32) return;
  values_.resize(size_of(rows, width));
  scales_.resize(size_of(rows, width / kGroupSize));
}

void ScaledBuffer::prepare(const Kernels& kernels, const float* x_I, int64_t row, int64_t begin,
                           int64_t end) {
  if (format_ == ActivationFormat::kFp32) return;
  kernels.scale_row(x_I + begin * kGroupSize, (end - begin) * kGroupSize,
                    values_.data() + row * width_ + begin * kGroupSize,
                    scales_.data() + row * (width_ / kGroupSize) + begin);
}

}  // namespace mobilemoe
