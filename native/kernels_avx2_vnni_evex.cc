// The integer kernels of AVX2 with AVX-512 VNNI with VL: 32 registers of 256 bits.
#define MOBILEMOE_DOT_EVEX
#include "avx2_attention.h"
#include "avx2_expert.h"
#include "avx2_linear.h"
#include "kernels_avx2_vnni.h"

namespace mobilemoe {

const VnniKernels kEvexVnniKernels = {linear_int8, expert_int8, attend_int8};

}  // namespace mobilemoe
