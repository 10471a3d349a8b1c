// Compiled for AVX2 and FMA; see kernels.cmake.
#include <immintrin.h>

#include "train_gemm_tile.h"

namespace mobilemoe {
namespace {

struct Avx2 {
  using Register = __m256;
  static constexpr int64_t kLanes = 8;

  static Register zero() { return _mm256_setzero_ps(); }
  static Register load(const float* from) { return _mm256_loadu_ps(from); }
  static Register broadcast(float x) { return _mm256_set1_ps(x); }
  static void store(float* to, Register x) { _mm256_storeu_ps(to, x); }
  static Register add(Register a, Register b) { return _mm256_add_ps(a, b); }
  static Register multiply_add(Register a, Register b, Register c) {
    return _mm256_fmadd_ps(a, b, c);
  }
};

}  // namespace

// 12 of 16 registers hold sums.
extern const GemmKernels kAvx2Gemm = gemm_table<Avx2, 6, 2>("avx2");

}  // namespace mobilemoe
