# The kernels of every instruction set, for whoever links them: the engine, and their own check.

# Bits must not depend on the machine or on the number of threads: no contraction into FMA
# behind our back, no fast-math, no -march=native.
set(MOBILEMOE_FLAGS -Wall -Wextra -O3 -ffp-contract=off)
# Ours to fix, not the user's: a newer compiler's new warning must not stop an installation.
option(MOBILEMOE_WERROR "Treat warnings as errors, as `make test` does" OFF)
if(MOBILEMOE_WERROR)
  list(APPEND MOBILEMOE_FLAGS -Werror)
endif()

# Adds to `target` the sources for the processor that is compiled for. Only they may hold such
# instructions; they are entered after a run-time check.
function(add_kernels target)
  set(here "${CMAKE_CURRENT_FUNCTION_LIST_DIR}")
  target_sources(${target} PRIVATE "${here}/kernels.cc" "${here}/kernels_portable.cc"
    "${here}/train_gemm.cc" "${here}/train_gemm_portable.cc")
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
    set(avx512 "${here}/kernels_avx512_attention.cc" "${here}/kernels_avx512_expert.cc"
        "${here}/kernels_avx512_linear.cc" "${here}/kernels_avx512_quantize.cc")
    set(avx512 ${avx512} "${here}/train_gemm_avx512.cc")
    set(avx2 "${here}/kernels_avx2.cc" "${here}/train_gemm_avx2.cc")
    target_sources(${target} PRIVATE "${here}/kernels_avx2_vnni_evex.cc" ${avx2} ${avx512})
    set_source_files_properties(${avx2} PROPERTIES COMPILE_OPTIONS "-mavx2;-mfma;-mf16c")
    set_source_files_properties("${here}/kernels_avx2_vnni_evex.cc" PROPERTIES COMPILE_OPTIONS
      "-mavx2;-mfma;-mf16c;-mavx512f;-mavx512vl;-mavx512vnni")
    include(CheckCXXCompilerFlag)
    check_cxx_compiler_flag(-mavxvnni MOBILEMOE_HAS_AVXVNNI)  # GCC 11, Clang 12
    if(MOBILEMOE_HAS_AVXVNNI)
      target_sources(${target} PRIVATE "${here}/kernels_avx2_vnni_vex.cc")
      set_source_files_properties("${here}/kernels_avx2_vnni_vex.cc" PROPERTIES COMPILE_OPTIONS
        "-mavx2;-mfma;-mf16c;-mavxvnni")
      target_compile_definitions(${target} PRIVATE MOBILEMOE_AVXVNNI=1)
    endif()
    # The two warnings: the intrinsics of GCC 12 begin from registers that they leave undefined.
    set_source_files_properties(${avx512} PROPERTIES COMPILE_OPTIONS
      "-mavx512f;-mavx512bw;-mavx512dq;-mavx512vl;-mavx512vnni;-mavx2;-mfma;-mf16c;$<$<CXX_COMPILER_ID:GNU>:-Wno-uninitialized;-Wno-maybe-uninitialized>")
    target_compile_definitions(${target} PRIVATE MOBILEMOE_AVX2=1)
  elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64)$")
    set(dotprod "${here}/kernels_neon_attention.cc" "${here}/kernels_neon_expert.cc"
        "${here}/kernels_neon_linear.cc")
    target_sources(${target} PRIVATE "${here}/kernels_neon_floats.cc"
      "${here}/kernels_neon_i8mm.cc" "${here}/kernels_neon_quantize.cc" ${dotprod})
    set_source_files_properties(${dotprod} PROPERTIES COMPILE_OPTIONS "-march=armv8.2-a+dotprod")
    set_source_files_properties("${here}/kernels_neon_i8mm.cc" PROPERTIES COMPILE_OPTIONS
      "-march=armv8.2-a+dotprod+i8mm")
    target_compile_definitions(${target} PRIVATE MOBILEMOE_NEON=1)
  endif()
endfunction()
