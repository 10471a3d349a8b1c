// The integer kernels of AVX2 with VNNI instructions, in the two encodings that CPUs have;
// kernels.h has their contracts. Enter only after a run-time check.
#pragma once

#include "kernels.h"

namespace mobilemoe {

struct VnniKernels {
  decltype(Kernels::linear_int8) linear_int8;
  decltype(Kernels::expert_int8) expert_int8;
  decltype(Kernels::attend_int8) attend_int8;
};

extern const VnniKernels kVexVnniKernels;   // needs AVX-VNNI
extern const VnniKernels kEvexVnniKernels;  // needs AVX-512 F, VL and VNNI

// `base`, the AVX2 table, with these functions in it.
inline Kernels avx2_vnni_table(Kernels base, const VnniKernels& vnni) {
  base.name = "avx2-vnni";
  base.linear_int8 = vnni.linear_int8;
  base.expert_int8 = vnni.expert_int8;
  base.attend_int8 = vnni.attend_int8;
  return base;
}

}  // namespace mobilemoe
