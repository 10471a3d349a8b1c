#include "ceiling_loops.h"

#include <algorithm>
#include <cstring>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#ifdef __linux__
#include <sys/auxv.h>
#endif
#endif

namespace mobilemoe {
namespace {

constexpr int kChains = 12;  // independent sums: more than latency times throughput anywhere

// Twelve accumulators are spelled out by unrolling; each loop hides its operands from the
// optimiser in every step, for else it would compute the product once and only add.
#define MOBILEMOE_UNROLL _Pragma("GCC unroll 16")

// --- portable ---------------------------------------------------------------------------------

constexpr int64_t kPortableLanes = 64;

void int8_portable(int64_t iterations) {
  int8_t a[kPortableLanes], b[kPortableLanes];
  int32_t sums[kPortableLanes] = {};
  std::memset(a, 1, sizeof a);
  std::memset(b, 1, sizeof b);
  for (int64_t i = 0; i < iterations; ++i) {
    asm volatile("" : : "r"(a), "r"(b) : "memory");
    for (int64_t j = 0; j < kPortableLanes; ++j) sums[j] += a[j] * b[j];
  }
  asm volatile("" : : "r"(sums) : "memory");
}

void fp32_portable(int64_t iterations) {
  float a[kPortableLanes], b[kPortableLanes];
  float sums[kPortableLanes] = {};
  std::fill(a, a + kPortableLanes, 1.0f);
  std::fill(b, b + kPortableLanes, 1.0f);
  for (int64_t i = 0; i < iterations; ++i) {
    asm volatile("" : : "r"(a), "r"(b) : "memory");
    for (int64_t j = 0; j < kPortableLanes; ++j) sums[j] += a[j] * b[j];
  }
  asm volatile("" : : "r"(sums) : "memory");
}

uint64_t read_portable(const uint8_t* data, int64_t bytes) {
  uint64_t sums[16] = {};
  for (int64_t i = 0; i < bytes; i += static_cast<int64_t>(sizeof sums)) {
    uint64_t words[16];
    std::memcpy(words, data + i, sizeof words);
    for (int j = 0; j < 16; ++j) sums[j] += words[j];
  }
  uint64_t total = 0;
  for (uint64_t sum : sums) total += sum;
  return total;
}

// --- x86-64 -----------------------------------------------------------------------------------
#if defined(__x86_64__)

#define MOBILEMOE_TARGET(features) __attribute__((target(features)))

MOBILEMOE_TARGET("avx512f,avx512bw,avx512vl,avx512vnni")
void int8_avx512_vnni(int64_t iterations) {
  __m512i sums[kChains] = {};
  __m512i a = _mm512_set1_epi8(1), b = _mm512_set1_epi8(1);
  for (int64_t i = 0; i < iterations; ++i) {
    MOBILEMOE_UNROLL
    for (int j = 0; j < kChains; ++j) {
      asm volatile("" : "+v"(a));
      sums[j] = _mm512_dpbusd_epi32(sums[j], a, b);
    }
  }
  for (int j = 0; j < kChains; ++j) asm volatile("" : : "v"(sums[j]));
}

MOBILEMOE_TARGET("avx512f")
void fp32_avx512(int64_t iterations) {
  __m512 sums[kChains] = {};
  __m512 a = _mm512_set1_ps(1), b = _mm512_set1_ps(1);
  for (int64_t i = 0; i < iterations; ++i) {
    MOBILEMOE_UNROLL
    for (int j = 0; j < kChains; ++j) {
      asm volatile("" : "+v"(a));
      sums[j] = _mm512_fmadd_ps(a, b, sums[j]);
    }
  }
  for (int j = 0; j < kChains; ++j) asm volatile("" : : "v"(sums[j]));
}

MOBILEMOE_TARGET("avx512f")
uint64_t read_avx512(const uint8_t* data, int64_t bytes) {
  __m512i sums[8] = {};
  for (int64_t i = 0; i < bytes; i += 512) {
    MOBILEMOE_UNROLL
    for (int j = 0; j < 8; ++j) {
      sums[j] = _mm512_add_epi64(sums[j], _mm512_loadu_si512(data + i + 64 * j));
    }
  }
  for (int j = 1; j < 8; ++j) sums[0] = _mm512_add_epi64(sums[0], sums[j]);
  uint64_t words[8];
  std::memcpy(words, &sums[0], sizeof words);
  uint64_t total = 0;
  for (uint64_t word : words) total += word;
  return total;
}

#if (defined(__clang__) && __clang_major__ >= 13) || (!defined(__clang__) && __GNUC__ >= 11)
#define MOBILEMOE_AVX_VNNI 1
MOBILEMOE_TARGET("avx2,avxvnni")
void int8_avx_vnni(int64_t iterations) {
  __m256i sums[kChains] = {};
  __m256i a = _mm256_set1_epi8(1), b = _mm256_set1_epi8(1);
  for (int64_t i = 0; i < iterations; ++i) {
    MOBILEMOE_UNROLL
    for (int j = 0; j < kChains; ++j) {
      asm volatile("" : "+x"(a));
      sums[j] = _mm256_dpbusd_avx_epi32(sums[j], a, b);
    }
  }
  for (int j = 0; j < kChains; ++j) asm volatile("" : : "x"(sums[j]));
}
#endif

MOBILEMOE_TARGET("avx2")
void int8_avx2(int64_t iterations) {
  __m256i sums[kChains] = {};
  __m256i a = _mm256_set1_epi8(1), b = _mm256_set1_epi8(1);
  const __m256i ones = _mm256_set1_epi16(1);
  for (int64_t i = 0; i < iterations; ++i) {
    MOBILEMOE_UNROLL
    for (int j = 0; j < kChains; ++j) {
      asm volatile("" : "+x"(a));
      const __m256i pairs = _mm256_maddubs_epi16(a, b);
      sums[j] = _mm256_add_epi32(sums[j], _mm256_madd_epi16(pairs, ones));
    }
  }
  for (int j = 0; j < kChains; ++j) asm volatile("" : : "x"(sums[j]));
}

MOBILEMOE_TARGET("avx2,fma")
void fp32_fma(int64_t iterations) {
  __m256 sums[kChains] = {};
  __m256 a = _mm256_set1_ps(1), b = _mm256_set1_ps(1);
  for (int64_t i = 0; i < iterations; ++i) {
    MOBILEMOE_UNROLL
    for (int j = 0; j < kChains; ++j) {
      asm volatile("" : "+x"(a));
      sums[j] = _mm256_fmadd_ps(a, b, sums[j]);
    }
  }
  for (int j = 0; j < kChains; ++j) asm volatile("" : : "x"(sums[j]));
}

MOBILEMOE_TARGET("avx2")
uint64_t read_avx2(const uint8_t* data, int64_t bytes) {
  __m256i sums[8] = {};
  for (int64_t i = 0; i < bytes; i += 256) {
    MOBILEMOE_UNROLL
    for (int j = 0; j < 8; ++j) {
      const auto* address = reinterpret_cast<const __m256i*>(data + i + 32 * j);
      sums[j] = _mm256_add_epi64(sums[j], _mm256_loadu_si256(address));
    }
  }
  for (int j = 1; j < 8; ++j) sums[0] = _mm256_add_epi64(sums[0], sums[j]);
  uint64_t words[4];
  std::memcpy(words, &sums[0], sizeof words);
  return words[0] + words[1] + words[2] + words[3];
}

bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

bool has_avx512_vnni() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
}

#ifdef MOBILEMOE_AVX_VNNI
bool has_avx_vnni() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return has_avx2() && __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a & (1u << 4)) != 0;
}
#endif

#endif  // __x86_64__

// --- AArch64 ----------------------------------------------------------------------------------
#if defined(__aarch64__)

#ifdef __clang__
__attribute__((target("dotprod")))
#else
__attribute__((target("arch=armv8.2-a+dotprod")))
#endif
void int8_dotprod(int64_t iterations) {
  int32x4_t sums[kChains] = {};
  int8x16_t a = vdupq_n_s8(1), b = vdupq_n_s8(1);
  for (int64_t i = 0; i < iterations; ++i) {
    MOBILEMOE_UNROLL
    for (int j = 0; j < kChains; ++j) {
      asm volatile("" : "+w"(a));
      sums[j] = vdotq_s32(sums[j], a, b);
    }
  }
  for (int j = 0; j < kChains; ++j) asm volatile("" : : "w"(sums[j]));
}

void fp32_neon(int64_t iterations) {
  float32x4_t sums[kChains] = {};
  float32x4_t a = vdupq_n_f32(1), b = vdupq_n_f32(1);
  for (int64_t i = 0; i < iterations; ++i) {
    MOBILEMOE_UNROLL
    for (int j = 0; j < kChains; ++j) {
      asm volatile("" : "+w"(a));
      sums[j] = vfmaq_f32(sums[j], a, b);
    }
  }
  for (int j = 0; j < kChains; ++j) asm volatile("" : : "w"(sums[j]));
}

bool has_dotprod() {
#ifdef __linux__
  constexpr unsigned long kDotProduct = 1ul << 20;  // HWCAP_ASIMDDP
  return (getauxval(AT_HWCAP) & kDotProduct) != 0;
#else
  return true;  // every Apple CPU with 64 bits that runs a supported system
#endif
}

#endif  // __aarch64__

}  // namespace

ComputeLoop best_int8_loop() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (has_avx512_vnni()) return {"avx512-vnni", 64 * kChains, &int8_avx512_vnni};
#ifdef MOBILEMOE_AVX_VNNI
  if (has_avx_vnni()) return {"avx-vnni", 32 * kChains, &int8_avx_vnni};
#endif
  if (has_avx2()) return {"avx2", 32 * kChains, &int8_avx2};
#elif defined(__aarch64__)
  if (has_dotprod()) return {"neon-dotprod", 16 * kChains, &int8_dotprod};
#endif
  return {"portable", kPortableLanes, &int8_portable};
}

ComputeLoop best_fp32_loop() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f")) return {"avx512", 16 * kChains, &fp32_avx512};
  if (has_avx2()) return {"fma", 8 * kChains, &fp32_fma};
#elif defined(__aarch64__)
  return {"neon", 4 * kChains, &fp32_neon};
#endif
  return {"portable", kPortableLanes, &fp32_portable};
}

ReadLoop best_read_loop() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f")) return {"avx512", &read_avx512};
  if (has_avx2()) return {"avx2", &read_avx2};
#endif
  return {"portable", &read_portable};
}

}  // namespace mobilemoe
