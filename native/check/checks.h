// What kernel_check runs: each compares one function of `table` with the portable one over odd
// sizes, throws Mismatch where they differ, and returns the number of cases.
#pragma once

#include "kernels.h"

namespace mobilemoe::check {

enum class Sizes {
  kAll,
  kFew,  // every size once, not every pair: for emulators
};

int64_t check_quantize_row(const Kernels& table, Sizes sizes);
int64_t check_scale_row(const Kernels& table, Sizes sizes);
int64_t check_linear_fp32(const Kernels& table, Sizes sizes);
int64_t check_linear_int8(const Kernels& table, Sizes sizes);
int64_t check_linear_bf16(const Kernels& table, Sizes sizes);
int64_t check_expert_fp32(const Kernels& table, Sizes sizes);
int64_t check_expert_int8(const Kernels& table, Sizes sizes);
int64_t check_expert_bf16(const Kernels& table, Sizes sizes);
int64_t check_silu_multiply(const Kernels& table, Sizes sizes);
int64_t check_widen_fp16(const Kernels& table, Sizes sizes);
int64_t check_dot(const Kernels& table, Sizes sizes);
int64_t check_attention_scores(const Kernels& table, Sizes sizes);
int64_t check_attention_values(const Kernels& table, Sizes sizes);
int64_t check_attend_int8(const Kernels& table, Sizes sizes);

// The products and attention from several threads at once, each computing its share of one
// result: the same bits as from one. For the thread sanitizer.
int64_t check_threads(const Kernels& table, int threads);

// The parallel parts of the engine over models in memory, run by teams of 1 to 7 threads: the
// same bits from all of them.
int64_t check_team(const Kernels& table, Sizes sizes);  // the team itself; without kernels
int64_t check_feed_forward(const Kernels& table, Sizes sizes);
int64_t check_whole_attention(const Kernels& table, Sizes sizes);
int64_t check_layers(const Kernels& table, Sizes sizes);  // both in turn

}  // namespace mobilemoe::check
