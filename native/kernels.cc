#include "kernels.h"

#include "errors.h"

#ifdef MOBILEMOE_AVX2
#include <cpuid.h>
#endif

namespace mobilemoe {
namespace {

#ifdef MOBILEMOE_AVX2
// Asked of the CPU itself: clang 14 knows no __builtin_cpu_supports("f16c").
bool has_f16c() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}
#endif

// The AVX2 table when this build has it and this CPU runs it, else null.
const Kernels* avx2_kernels() {
#ifdef MOBILEMOE_AVX2
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c()) {
    return &kAvx2Kernels;
  }
#endif
  return nullptr;
}

}  // namespace

const Kernels& choose_kernels(const std::string& name) {
  if (name != "auto" && name != "portable" && name != "avx2") {
    throw InvalidArgument("kernel is '" + name + "'; allowed: auto, portable, avx2");
  }
  const Kernels* avx2 = name == "portable" ? nullptr : avx2_kernels();
  if (name == "avx2" && avx2 == nullptr) {
    throw InvalidArgument("kernel is 'avx2'; allowed here: auto, portable (no AVX2, FMA and F16C)");
  }
  return avx2 != nullptr ? *avx2 : kPortableKernels;
}

}  // namespace mobilemoe
