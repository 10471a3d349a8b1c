// Compiled for AVX-512; see kernels.cmake.
#include <immintrin.h>

#include "train_gemm_tile.h"

namespace mobilemoe {
namespace {

struct Avx512 {
  using Register = __m512;
  static constexpr int64_t kLanes = 16;

  static Register zero() { return _mm512_setzero_ps(); }
  static Register load(const float* from) { return _mm512_loadu_ps(from); }
  static Register broadcast(float x) { return _mm512_set1_ps(x); }
  static void store(float* to, Register x) { _mm512_storeu_ps(to, x); }
  static Register add(Register a, Register b) { return _mm512_add_ps(a, b); }
  static Register multiply_add(Register a, Register b, Register c) {
    return _mm512_fmadd_ps(a, b, c);
  }
};

}  // namespace

// 24 of 32 registers hold sums.
extern const GemmKernels kAvx512Gemm = gemm_table<Avx512, 6, 4>("avx512");

}  // namespace mobilemoe
