#include "kv_cache.h"

#include <algorithm>
#include <new>

#include "errors.h"
#include "quantize_scale.h"

namespace mobilemoe {
namespace {

constexpr int64_t kLongestInt8Head = 512;  // beyond it the integer scores could overflow

int64_t element_bytes(KvFormat format) {
  return format == KvFormat::kFp32 ? 4 : format == KvFormat::kFp16 ? 2 : 1;
}

void check_int8(const Config& config) {
  const int64_t d = config.head_dim;
  if (d % kKeyLanes == 0 && d <= kLongestInt8Head) return;
  throw InvalidArgument("kv is 'int8'; allowed for head_dim " + std::to_string(d) +
                        ": fp16, fp32\nhint: int8 needs a head_dim that is a multiple of 16, "
                        "at most " + std::to_string(kLongestInt8Head));
}

uint32_t largest_magnitude_bits(const float* x, int64_t count) {
  uint32_t largest = 0;
  for (int64_t i = 0; i < count; ++i) {
    largest = std::max(largest, std::bit_cast<uint32_t>(x[i]) & 0x7FFFFFFFu);
  }
  return largest;
}

// The nearest integer of x * inverse, ties to even; 0 for an inverse of 0, which marks a row
// without finite size.
int8_t quantized(float x, float inverse) {
  constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23: its unit in the last place is 1
  const float scaled = inverse == 0.0f ? 0.0f : x * inverse;
  return static_cast<int8_t>(static_cast<int32_t>((scaled + kMagic) - kMagic));
}

}  // namespace

KvFormat kv_format_from(const std::string& name) {
  if (name == "fp32") return KvFormat::kFp32;
  if (name == "fp16") return KvFormat::kFp16;
  if (name == "int8") return KvFormat::kInt8;
  throw InvalidArgument("kv is '" + name + "'; allowed: int8, fp16, fp32");
}

KvCache::KvCache(const Config& config, int64_t context, KvFormat format)
    : format_(format),
      heads_(config.num_key_value_heads),
      positions_((context + kPositionBlock - 1) / kPositionBlock * kPositionBlock),
      d_(config.head_dim),
      head_size_(positions_ * d_) {
  if (format == KvFormat::kInt8) check_int8(config);
  const double elements = static_cast<double>(config.num_hidden_layers) *
                          static_cast<double>(heads_) * static_cast<double>(head_size_);
  if (elements > 1e15) {
    throw InvalidArgument("context is " + std::to_string(context) +
                          "; allowed: one whose KV cache fits in memory");
  }
  const int64_t heads = config.num_hidden_layers * heads_;
  keys_ = zeros(heads * head_size_ * element_bytes(format));
  values_ = zeros(heads * head_size_ * element_bytes(format));
  if (format != KvFormat::kInt8) return;
  key_scales_ = zeros(heads * positions_ * static_cast<int64_t>(sizeof(float)));
  value_scales_ = zeros(heads * positions_ * static_cast<int64_t>(sizeof(float)));
}

KvCache::Buffer KvCache::zeros(int64_t bytes) {
  Buffer buffer(std::calloc(static_cast<size_t>(bytes), 1));
  if (!buffer) throw std::bad_alloc();
  return buffer;
}

void KvCache::store(int64_t layer, int64_t head, int64_t position, const float* k_d,
                    const float* v_d) {
  const int64_t at = offset(layer, head) + position * d_;
  if (format_ == KvFormat::kInt8) {
    store_int8(layer, head, position, k_d, v_d);
  } else if (format_ == KvFormat::kFp32) {
    std::copy(k_d, k_d + d_, static_cast<float*>(keys_.get()) + at);
    std::copy(v_d, v_d + d_, static_cast<float*>(values_.get()) + at);
  } else {
    std::transform(k_d, k_d + d_, static_cast<uint16_t*>(keys_.get()) + at, float_to_half);
    std::transform(v_d, v_d + d_, static_cast<uint16_t*>(values_.get()) + at, float_to_half);
  }
}

void KvCache::store_int8(int64_t layer, int64_t head, int64_t position, const float* k_d,
                         const float* v_d) {
  const BlockScale k = block_scale(largest_magnitude_bits(k_d, d_));
  const BlockScale v = block_scale(largest_magnitude_bits(v_d, d_));
  int8_t* keys = static_cast<int8_t*>(keys_.get()) + offset(layer, head) +
                 position / kKeyLanes * kKeyLanes * d_ + position % kKeyLanes * 4;
  int8_t* values = static_cast<int8_t*>(values_.get()) + offset(layer, head) +
                   position / 4 * 4 * d_ + position % 4;
  for (int64_t i = 0; i < d_; ++i) {
    keys[i / 4 * 4 * kKeyLanes + i % 4] = quantized(k_d[i], k.inverse);
    values[4 * i] = quantized(v_d[i], v.inverse);
  }
  const int64_t scale = (layer * heads_ + head) * positions_ + position;
  static_cast<float*>(key_scales_.get())[scale] = k.scale;
  static_cast<float*>(value_scales_.get())[scale] = v.scale;
}

Int8Cache KvCache::int8(int64_t layer, int64_t head) const {
  const int64_t scales = (layer * heads_ + head) * positions_;
  return {static_cast<const int8_t*>(keys_.get()) + offset(layer, head),
          static_cast<const int8_t*>(values_.get()) + offset(layer, head),
          static_cast<const float*>(key_scales_.get()) + scales,
          static_cast<const float*>(value_scales_.get()) + scales};
}

const float* KvCache::fp32_keys(int64_t layer, int64_t head) const {
  return static_cast<const float*>(keys_.get()) + offset(layer, head);
}

const float* KvCache::fp32_values(int64_t layer, int64_t head) const {
  return static_cast<const float*>(values_.get()) + offset(layer, head);
}

const uint16_t* KvCache::fp16_keys(int64_t layer, int64_t head) const {
  return static_cast<const uint16_t*>(keys_.get()) + offset(layer, head);
}

const uint16_t* KvCache::fp16_values(int64_t layer, int64_t head) const {
  return static_cast<const uint16_t*>(values_.get()) + offset(layer, head);
}

}  // namespace mobilemoe
