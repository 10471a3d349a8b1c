// What every processor of its family runs: NEON on 64-bit ARM, else vectors of the compiler's.
#include "train_gemm_tile.h"

#ifdef __aarch64__
#include <arm_neon.h>
#endif

namespace mobilemoe {
namespace {

#ifdef __aarch64__
struct Neon {
  using Register = float32x4_t;
  static constexpr int64_t kLanes = 4;

  static Register zero() { return vdupq_n_f32(0); }
  static Register load(const float* from) { return vld1q_f32(from); }
  static Register broadcast(float x) { return vdupq_n_f32(x); }
  static void store(float* to, Register x) { vst1q_f32(to, x); }
  static Register add(Register a, Register b) { return vaddq_f32(a, b); }
  static Register multiply_add(Register a, Register b, Register c) { return vfmaq_f32(c, a, b); }
};
#else
struct Portable {
  using Register __attribute__((vector_size(16))) = float;
  static constexpr int64_t kLanes = 4;

  static Register zero() { return Register{}; }
  static Register load(const float* from) {
    Register x;
    std::memcpy(&x, from, sizeof x);
    return x;
  }
  static Register broadcast(float x) { return Register{x, x, x, x}; }
  static void store(float* to, Register x) { std::memcpy(to, &x, sizeof x); }
  static Register add(Register a, Register b) { return a + b; }
  static Register multiply_add(Register a, Register b, Register c) { return a * b + c; }
};
#endif

}  // namespace

#ifdef __aarch64__
extern const GemmKernels kPortableGemm = gemm_table<Neon, 6, 4>("neon");
#else
extern const GemmKernels kPortableGemm = gemm_table<Portable, 4, 2>("portable");
#endif

}  // namespace mobilemoe
