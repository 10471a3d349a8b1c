#include "kernels.h"

#include "errors.h"

#ifdef MOBILEMOE_AVX2
#include <cpuid.h>

#include "kernels_avx2_vnni.h"
#include "kernels_avx512.h"
#endif
#ifdef MOBILEMOE_NEON
#ifdef __APPLE__
#include <sys/sysctl.h>
#else
#include <sys/auxv.h>
#endif

#include "kernels_neon.h"
#endif

namespace mobilemoe {
namespace {

#ifdef MOBILEMOE_AVX2
// Asked of the CPU itself: clang 14 knows no __builtin_cpu_supports("f16c").
bool has_f16c() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}

#ifdef MOBILEMOE_AVXVNNI
// Likewise; the bit stands in the second page of leaf 7, which older CPUs answer with zeros.
bool has_avx_vnni() {
  constexpr unsigned kAvxVnni = 1u << 4;
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a & kAvxVnni) != 0;
}
#endif
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

// The AVX2 table with VNNI, in the encoding that this CPU has. Null as above.
const Kernels* avx2_vnni_kernels() {
#ifdef MOBILEMOE_AVX2
  if (avx2_kernels() == nullptr) return nullptr;
#ifdef MOBILEMOE_AVXVNNI
  static const Kernels vex = avx2_vnni_table(kAvx2Kernels, kVexVnniKernels);
  if (has_avx_vnni()) return &vex;
#endif
  static const Kernels evex = avx2_vnni_table(kAvx2Kernels, kEvexVnniKernels);
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512vnni")) {
    return &evex;
  }
#endif
  return nullptr;
}

// The AVX-512 table: the AVX2 one, with integer kernels of its own. Null as above.
const Kernels* avx512_kernels() {
#ifdef MOBILEMOE_AVX2
  const bool runs = avx2_kernels() != nullptr && __builtin_cpu_supports("avx512f") &&
                    __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                    __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
  static const Kernels table = avx512_table(kAvx2Kernels);
  if (runs) return &table;
#endif
  return nullptr;
}

#ifdef MOBILEMOE_NEON
#ifdef __APPLE__
bool has_feature(const char* name) {
  int value = 0;
  size_t size = sizeof value;
  return ::sysctlbyname(name, &value, &size, nullptr, 0) == 0 && value != 0;
}

bool has_dotprod() { return has_feature("hw.optional.arm.FEAT_DotProd"); }
bool has_i8mm() { return has_feature("hw.optional.arm.FEAT_I8MM"); }
#else
// Bits of the kernel's interface, which older headers have no names for.
bool has_dotprod() { return (::getauxval(AT_HWCAP) & (1ul << 20)) != 0; }
bool has_i8mm() { return (::getauxval(AT_HWCAP2) & (1ul << 13)) != 0; }
#endif
#endif

const Kernels* neon_dotprod_kernels() {
#ifdef MOBILEMOE_NEON
  static const Kernels table = neon_dotprod_table(kPortableKernels);
  if (has_dotprod()) return &table;
#endif
  return nullptr;
}

const Kernels* neon_i8mm_kernels() {
#ifdef MOBILEMOE_NEON
  static const Kernels table = neon_i8mm_table(kPortableKernels);
  if (has_dotprod() && has_i8mm()) return &table;
#endif
  return nullptr;
}

struct Candidate {
  const char* name;
  const Kernels* (*table)();
  const char* needs;
};

// Best first.
constexpr Candidate kCandidates[] = {
    {"avx512", avx512_kernels, "AVX-512 F, BW, DQ, VL and VNNI"},
    {"avx2-vnni", avx2_vnni_kernels, "AVX2, FMA and F16C with AVX-VNNI or AVX-512 VL and VNNI"},
    {"avx2", avx2_kernels, "AVX2, FMA and F16C"},
    {"neon-i8mm", neon_i8mm_kernels, "NEON dot products and matrix products of int8"},
    {"neon-dotprod", neon_dotprod_kernels, "NEON dot products"},
    {"portable", [] { return &kPortableKernels; }, "nothing"},
};

// "auto, avx512, ...": those that `wanted` says yes to.
template <class Wanted>
std::string list_names(const Wanted& wanted) {
  std::string names = "auto";
  for (const Candidate& candidate : kCandidates) {
    if (wanted(candidate)) names += std::string(", ") + candidate.name;
  }
  return names;
}

}  // namespace

const Kernels& choose_kernels(const std::string& name) {
  for (const Candidate& candidate : kCandidates) {
    if (name != "auto" && name != candidate.name) continue;
    const Kernels* table = candidate.table();
    if (table != nullptr) return *table;
    if (name == "auto") continue;
    throw InvalidArgument("kernel is '" + name + "'; allowed here: " +
                          list_names([](const auto& c) { return c.table() != nullptr; }) + " (no " +
                          candidate.needs + ")");
  }
  throw InvalidArgument("kernel is '" + name +
                        "'; allowed: " + list_names([](const auto&) { return true; }));
}

std::vector<std::string> available_kernels() {
  std::vector<std::string> names;
  for (const Candidate& candidate : kCandidates) {
    if (candidate.table() != nullptr) names.push_back(candidate.name);
  }
  return names;
}

}  // namespace mobilemoe
