// Shares of one result computed by several threads at once.
#include <functional>
#include <thread>

#include "attend_case.h"
#include "checks.h"
#include "compare.h"
#include "inputs.h"

namespace mobilemoe::check {
namespace {

constexpr int64_t kRows = 67, kWidth = 160, kGroups = 11;

// Calls `share(begin, end)` for consecutive parts of [0, units), each on a thread of its own.
void split(int64_t units, int threads, const std::function<void(int64_t, int64_t)>& share) {
  std::vector<std::thread> workers;
  for (int64_t t = 0; t < threads; ++t) {
    workers.emplace_back(share, units * t / threads, units * (t + 1) / threads);
  }
  for (std::thread& worker : workers) worker.join();
}

using Product = std::function<void(int64_t begin, int64_t end, float* y)>;

// The same bits from one thread and from several, twice over the same memory.
void check_shares(const char* what, size_t size, int64_t units, int threads,
                  const Product& product) {
  std::vector<float> expected(size), actual(size);
  product(0, units, expected.data());
  for (int round = 0; round < 2; ++round) {
    split(units, threads, [&](int64_t begin, int64_t end) {
      if (begin < end) product(begin, end, actual.data());
    });
    expect_same(what, actual, expected);
  }
}

int64_t check_linears(const Kernels& table, int threads, int64_t tokens) {
  Random random(7);
  const Int4Data w = random_int4(random, kRows, kWidth);
  const Bf16Data w_bf16 = random_bf16(random, kRows, kWidth);
  const std::vector<float> x = random_floats(random, tokens * kWidth);
  const QuantizedData quantized = quantize(x, kWidth);
  const auto size = static_cast<size_t>(tokens * kRows);
  check_shares("linear_int8", size, kRows, threads, [&](int64_t begin, int64_t end, float* y) {
    table.linear_int8(w.matrix, quantized.rows(0), tokens, begin, end, y);
  });
  check_shares("linear_fp32", size, kRows, threads, [&](int64_t begin, int64_t end, float* y) {
    table.linear_fp32(w.matrix, x.data(), tokens, begin, end, y);
  });
  check_shares("linear_bf16", size, kRows, threads, [&](int64_t begin, int64_t end, float* y) {
    table.linear_bf16(w_bf16.matrix, x.data(), tokens, begin, end, y);
  });
  return 3;
}

int64_t check_experts(const Kernels& table, int threads, int64_t slots) {
  Random random(8);
  const Int4Data w = random_int4(random, kWidth, kGroups * kGroupSize);
  const Bf16Data w_bf16 = random_bf16(random, kWidth, kGroups * kGroupSize);
  const std::vector<float> x = random_floats(random, slots * kWidth);
  const ScaledData scaled = scale(x, kWidth);
  std::vector<int32_t> rows;
  std::vector<const float*> x_S;
  for (int64_t s = 0; s < slots; ++s) {
    rows.push_back(static_cast<int32_t>(slots - 1 - s));
    x_S.push_back(x.data() + s * kWidth);
  }
  const auto size = static_cast<size_t>(slots * kGroups * kGroupSize);
  check_shares("expert_int8", size, kGroups, threads, [&](int64_t begin, int64_t end, float* y) {
    table.expert_int8(w.matrix, scaled.rows(), rows.data(), slots, begin, end, y);
  });
  check_shares("expert_fp32", size, kGroups, threads, [&](int64_t begin, int64_t end, float* y) {
    table.expert_fp32(w.matrix, x_S.data(), slots, begin, end, y);
  });
  check_shares("expert_bf16", size, kGroups, threads, [&](int64_t begin, int64_t end, float* y) {
    table.expert_bf16(w_bf16.matrix, x_S.data(), slots, begin, end, y);
  });
  return 3;
}

int64_t check_attend(const Kernels& table, int threads) {
  Random random(9);
  const AttendCase c = random_attend(random, 64, 200, 9);
  check_shares("attend_int8", static_cast<size_t>(c.rows() * c.d), c.rows(), threads,
               [&](int64_t begin, int64_t end, float* y) {
                 std::vector<float*> out;
                 for (int64_t r = begin; r < end; ++r) out.push_back(y + r * c.d);
                 table.attend_int8(c.cache(), c.queries(begin, end - begin), out.data());
               });
  return 1;
}

}  // namespace

int64_t check_threads(const Kernels& table, int threads) {
  int64_t cases = check_attend(table, threads);
  for (const int64_t tokens : {1, 3, 13}) {
    cases += check_linears(table, threads, tokens) + check_experts(table, threads, tokens);
  }
  return cases;
}

}  // namespace mobilemoe::check
