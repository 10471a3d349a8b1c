// The integer kernels of AVX2 with AVX-VNNI: registers 0 to 15, no masks.
#define MOBILEMOE_DOT_VEX
#include "avx2_attention.h"
#include "avx2_expert.h"
#include "avx2_linear.h"
#include "kernels_avx2_vnni.h"

namespace mobilemoe {

const VnniKernels kVexVnniKernels = {linear_int8, expert_int8, attend_int8};

}  // namespace mobilemoe
