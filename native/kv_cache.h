// Keys and values of one session.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>

#include "config.h"
#include "kernels.h"

namespace mobilemoe {

enum class KvFormat { kFp32, kFp16, kInt8 };

// "fp32", "fp16" or "int8"; throws InvalidArgument for anything else.
KvFormat kv_format_from(const std::string& name);

// [layers, G, N, d] with N the context rounded up to kPositionBlock; int8 has a scale per head
// and position, and the order of Int8Cache. Memory pages are touched, and so paid for, only as
// the context fills.
class KvCache {
 public:
  // Throws InvalidArgument when the size overflows or int8 does not take the head dim,
  // std::bad_alloc when there is no memory.
  KvCache(const Config& config, int64_t context, KvFormat format);

  KvFormat format() const { return format_; }

  // Stores one key and one value [d] of a head at `position`.
  void store(int64_t layer, int64_t head, int64_t position, const float* k_d, const float* v_d);

  // What a head holds, in the format that the cache has.
  Int8Cache int8(int64_t layer, int64_t head) const;
  const float* fp32_keys(int64_t layer, int64_t head) const;
  const float* fp32_values(int64_t layer, int64_t head) const;
  const uint16_t* fp16_keys(int64_t layer, int64_t head) const;
  const uint16_t* fp16_values(int64_t layer, int64_t head) const;

 private:
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };
  using Buffer = std::unique_ptr<void, Free>;

  static Buffer zeros(int64_t bytes);
  // The index of a head's first element.
  int64_t offset(int64_t layer, int64_t head) const { return (layer * heads_ + head) * head_size_; }
  void store_int8(int64_t layer, int64_t head, int64_t position, const float* k_d,
                  const float* v_d);

  KvFormat format_;
  int64_t heads_, positions_, d_, head_size_;
  Buffer keys_, values_, key_scales_, value_scales_;
};

}  // namespace mobilemoe
