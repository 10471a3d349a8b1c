// The float32 products of training: one table of functions per instruction set.
//
// M rows of the result, N its columns, K the reduction axis, F width of an expert. Sizes are in
// elements and of any value. An element of a product is a sum over K in ascending order, in
// blocks of kDepthBlock that are added up one after the other: its bits depend on neither the
// other rows and columns of the call nor on how a product is cut into calls.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace mobilemoe {

constexpr int64_t kDepthBlock = 256;

// The left matrix: element (m, k) is rows[m][k * step].
struct LeftRows {
  const float* const* rows = nullptr;  // [M]
  int64_t count = 0;                   // M
  int64_t step = 1;
};

// The right matrix as `pack_right` or `pack_right_transposed` leave it. Columns are cut into
// panels; the columns of the last one are rounded up to whole vectors with zeros.
struct PackedRight {
  const float* values = nullptr;
  int64_t depth = 0;    // K, at most kDepthBlock
  int64_t columns = 0;  // N
};

struct GemmKernels {
  const char* name;
  int64_t lanes;  // floats of a vector
  int64_t panel;  // columns of a panel, a multiple of `lanes`

  // c[m, n] = sum_k left(m, k) right[k, n], or += if `add`; rows of c lie `c_stride` apart.
  void (*multiply)(const LeftRows& left, const PackedRight& right, float* c, int64_t c_stride,
                   bool add);
  // a[f] = silu(gate[f]) * up[f]; nothing may overlap.
  void (*swiglu)(const float* gate, const float* up, int64_t width, float* a);
  // The same a, and from its gradient those of gate and up; nothing may overlap.
  void (*swiglu_gradient)(const float* gate, const float* up, const float* grad_a, int64_t width,
                          float* a, float* grad_gate, float* grad_up);
  // Returns -log softmax(logits)[target] and leaves its gradient, softmax - [target], there.
  float (*cross_entropy)(float* logits, int64_t width, int64_t target);
  // x becomes softmax(scale x); returns log sum exp(scale x).
  float (*softmax)(float* x, int64_t width, float scale);
  // x becomes p = exp(scale x - log_sum), and the gradient of p that of x.
  void (*softmax_gradient)(float* x, float* gradient, int64_t width, float scale, float log_sum);
};

// The table for `name`: "portable", "avx2", "avx512", "neon", or "auto" for the best one here.
// Throws InvalidArgument for an unknown name and for one that this CPU or build lacks.
const GemmKernels& choose_gemm(const std::string& name);

// The names of the tables that this CPU runs, best first.
std::vector<std::string> available_gemms();

// Floats that a packed matrix takes.
int64_t packed_size(const GemmKernels& kernels, int64_t depth, int64_t columns);
// Packs b [K, N], whose rows lie `stride` apart, into `packed`.
PackedRight pack_right(const GemmKernels& kernels, const float* b, int64_t stride, int64_t depth,
                       int64_t columns, float* packed);
// Packs the transposed b [N, K].
PackedRight pack_right_transposed(const GemmKernels& kernels, const float* b, int64_t stride,
                                  int64_t depth, int64_t columns, float* packed);

extern const GemmKernels kPortableGemm;  // NEON on 64-bit ARM, which always has it
#ifdef MOBILEMOE_AVX2
extern const GemmKernels kAvx2Gemm, kAvx512Gemm;  // enter only after a run-time check
#endif

}  // namespace mobilemoe
