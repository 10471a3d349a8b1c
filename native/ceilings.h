// What this machine can do at most, measured: bytes read per second, multiply-adds per second.
// The denominators of a benchmark; nothing else in the engine uses them.
#pragma once

#include <cstdint>

namespace mobilemoe {

struct ComputePeak {
  double gmac_s = 0;         // 10^9 multiply-accumulates per second, all threads together
  const char* instructions;  // what did them: "avx512-vnni", "avx-vnni", "avx2", ...
};

// Bytes per second / 10^9 at which `threads` threads sum up a buffer of `bytes` together; the best
// of `passes` passes. A buffer several times the last cache measures memory, not the cache.
// Throws InvalidArgument unless threads is 1 to 1024, passes at least 1 and bytes at least 1 MiB;
// std::bad_alloc if the buffer does not fit, std::system_error if a thread cannot start.
double read_gb_s(int64_t bytes, int threads, int passes);

// Dot products of int8 that nothing depends on, from registers, with the best instructions of
// this CPU: the best of `passes` passes of about `milliseconds`. Throws as `read_gb_s`.
ComputePeak int8_peak(int threads, int passes, int milliseconds);
// The same for fused multiply-adds of float32 (where the CPU has none: multiply, then add).
ComputePeak fp32_peak(int threads, int passes, int milliseconds);

}  // namespace mobilemoe
