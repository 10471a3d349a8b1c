#include "train_gemm.h"

#include <algorithm>
#include <cstring>

#include "errors.h"

namespace mobilemoe {
namespace {

const GemmKernels* avx512_gemm() {
#ifdef MOBILEMOE_AVX2
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    return &kAvx512Gemm;
  }
#endif
  return nullptr;
}

const GemmKernels* avx2_gemm() {
#ifdef MOBILEMOE_AVX2
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return &kAvx2Gemm;
#endif
  return nullptr;
}

// Best first.
std::vector<const GemmKernels*> runnable() {
  std::vector<const GemmKernels*> tables;
  for (const GemmKernels* table : {avx512_gemm(), avx2_gemm(), &kPortableGemm}) {
    if (table != nullptr) tables.push_back(table);
  }
  return tables;
}

// Four floats, which every processor moves at once; a panel's width is a multiple of them.
constexpr int64_t kQuad = 4;
using Quad __attribute__((vector_size(16))) = float;

Quad load(const float* from) {
  Quad x;
  std::memcpy(&x, from, sizeof x);
  return x;
}

void store(float* to, Quad x) { std::memcpy(to, &x, sizeof x); }

// to[k, n] = b[n, k] for four n and k. (GCC has __builtin_shufflevector only since 12.)
void transpose_quad(const float* b, int64_t stride, float* to, int64_t width) {
  const Quad a = load(b), c = load(b + stride), e = load(b + 2 * stride), g = load(b + 3 * stride);
  for (int k = 0; k < kQuad; ++k) store(to + k * width, Quad{a[k], c[k], e[k], g[k]});
}

// The same for `depth` k; zeros where there are fewer than four n.
void transpose_columns(const float* b, int64_t stride, int64_t depth, int64_t wanted, float* to,
                       int64_t width) {
  int64_t k = 0;
  for (; wanted >= kQuad && k + kQuad <= depth; k += kQuad) {
    transpose_quad(b + k, stride, to + k * width, width);
  }
  for (; k < depth; ++k) {
    for (int64_t n = 0; n < kQuad; ++n) to[k * width + n] = n < wanted ? b[n * stride + k] : 0.0f;
  }
}

// Panel after panel: where each begins in the packed matrix, and its width there.
template <class Fill>
void for_panels(const GemmKernels& kernels, int64_t depth, int64_t columns, float* packed,
                const Fill& fill) {
  for (int64_t first = 0; first < columns; first += kernels.panel) {
    const int64_t wanted = std::min(kernels.panel, columns - first);
    const int64_t width = (wanted + kernels.lanes - 1) / kernels.lanes * kernels.lanes;
    fill(first, wanted, width, packed + first * depth);
  }
}

}  // namespace

const GemmKernels& choose_gemm(const std::string& name) {
  std::string allowed = "auto";
  for (const GemmKernels* table : runnable()) {
    if (name == "auto" || name == table->name) return *table;
    allowed += std::string(", ") + table->name;
  }
  throw InvalidArgument("kernel is '" + name + "'; allowed here: " + allowed);
}

std::vector<std::string> available_gemms() {
  std::vector<std::string> names;
  for (const GemmKernels* table : runnable()) names.push_back(table->name);
  return names;
}

int64_t packed_size(const GemmKernels& kernels, int64_t depth, int64_t columns) {
  return (columns + kernels.lanes - 1) / kernels.lanes * kernels.lanes * depth;
}

PackedRight pack_right(const GemmKernels& kernels, const float* b, int64_t stride, int64_t depth,
                       int64_t columns, float* packed) {
  for_panels(kernels, depth, columns, packed,
             [&](int64_t first, int64_t wanted, int64_t width, float* to) {
               for (int64_t k = 0; k < depth; ++k, to += width) {
                 const float* from = b + k * stride + first;
                 int64_t n = 0;
                 for (; n + kQuad <= wanted; n += kQuad) store(to + n, load(from + n));
                 for (; n < wanted; ++n) to[n] = from[n];
                 std::fill(to + wanted, to + width, 0.0f);
               }
             });
  return {packed, depth, columns};
}

PackedRight pack_right_transposed(const GemmKernels& kernels, const float* b, int64_t stride,
                                  int64_t depth, int64_t columns, float* packed) {
  for_panels(kernels, depth, columns, packed,
             [&](int64_t first, int64_t wanted, int64_t width, float* to) {
               for (int64_t n = 0; n < width; n += kQuad) {
                 transpose_columns(b + (first + n) * stride, stride, depth, wanted - n, to + n,
                                   width);
               }
             });
  return {packed, depth, columns};
}

}  // namespace mobilemoe
