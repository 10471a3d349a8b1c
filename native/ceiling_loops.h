// The inner loops of the ceilings, and which of them this CPU runs.
#pragma once

#include <cstdint>

namespace mobilemoe {

struct ComputeLoop {
  const char* instructions;
  int64_t macs_per_iteration;
  void (*run)(int64_t iterations);
};

struct ReadLoop {
  const char* instructions;
  // A sum over the bytes, which are a multiple of 512; it has no meaning but keeps the reads.
  uint64_t (*run)(const uint8_t* data, int64_t bytes);
};

ComputeLoop best_int8_loop();
ComputeLoop best_fp32_loop();
ReadLoop best_read_loop();

}  // namespace mobilemoe
