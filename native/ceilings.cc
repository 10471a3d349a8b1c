#include "ceilings.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "ceiling_loops.h"
#include "errors.h"

namespace mobilemoe {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kBlock = 512;  // what a read loop takes at a time
constexpr int64_t kSmallestBuffer = 1 << 20;
constexpr int kMaxThreads = 1024;

void check(int threads, int passes) {
  if (threads < 1 || threads > kMaxThreads) {
    throw InvalidArgument("threads is " + std::to_string(threads) + "; allowed: 1 to 1024");
  }
  if (passes < 1) {
    throw InvalidArgument("passes is " + std::to_string(passes) + "; allowed: at least 1");
  }
}

// Seconds in which all of `threads` threads (the caller's included) have run `body(thread)`, from
// the moment when every one of them is there.
template <class Body>
double timed_together(int threads, const Body& body) {
  std::atomic<int> waiting{threads};
  const auto run = [&](int thread) {
    waiting.fetch_sub(1);
    while (waiting.load() > 0) std::this_thread::yield();  // < 0: a thread could not start
    if (waiting.load() == 0) body(thread);
  };
  std::vector<std::thread> others;
  Clock::time_point started;
  {
    // Joins on every way out, so that no thread outlives what it refers to.
    struct Joiner {
      std::vector<std::thread>& threads;
      ~Joiner() {
        for (std::thread& thread : threads) thread.join();
      }
    } joiner{others};
    try {
      others.reserve(static_cast<size_t>(threads));
      for (int thread = 1; thread < threads; ++thread) others.emplace_back(run, thread);
    } catch (...) {
      waiting.store(-threads);
      throw;
    }
    while (waiting.load() > 1) std::this_thread::yield();
    started = Clock::now();
    run(0);
  }
  return std::chrono::duration<double>(Clock::now() - started).count();
}

double peak_of(const ComputeLoop& loop, int threads, int passes, int milliseconds) {
  check(threads, passes);
  int64_t iterations = 1 << 12;
  const auto seconds_for = [&] {
    return timed_together(threads, [&](int) { loop.run(iterations); });
  };
  seconds_for();  // wakes the wide units up
  const double wanted = 1e-3 * std::clamp(milliseconds, 1, 10'000);
  double seconds = seconds_for();
  while (seconds < wanted && iterations < (int64_t{1} << 40)) {
    iterations *= 2;
    seconds = seconds_for();
  }
  for (int pass = 1; pass < passes; ++pass) seconds = std::min(seconds, seconds_for());
  return 1e-9 * static_cast<double>(iterations * loop.macs_per_iteration) * threads / seconds;
}

}  // namespace

double read_gb_s(int64_t bytes, int threads, int passes) {
  check(threads, passes);
  if (bytes < kSmallestBuffer) {
    throw InvalidArgument("bytes is " + std::to_string(bytes) + "; allowed: at least 1048576");
  }
  const ReadLoop loop = best_read_loop();
  const int64_t blocks = bytes / kBlock;
  const auto buffer = std::make_unique_for_overwrite<uint8_t[]>(static_cast<size_t>(bytes));
  const auto begin = [&](int thread) { return blocks * thread / threads * kBlock; };
  // Each thread touches its own share first, so that it lies in the memory near it.
  timed_together(threads, [&](int thread) {
    const int64_t count = begin(thread + 1) - begin(thread);
    std::memset(buffer.get() + begin(thread), 1, static_cast<size_t>(count));
  });
  std::atomic<uint64_t> sink{0};
  double best = 1e30;
  for (int pass = 0; pass < passes; ++pass) {
    best = std::min(best, timed_together(threads, [&](int thread) {
      sink += loop.run(buffer.get() + begin(thread), begin(thread + 1) - begin(thread));
    }));
  }
  return 1e-9 * static_cast<double>(blocks * kBlock) / best;
}

ComputePeak int8_peak(int threads, int passes, int milliseconds) {
  const ComputeLoop loop = best_int8_loop();
  return {peak_of(loop, threads, passes, milliseconds), loop.instructions};
}

ComputePeak fp32_peak(int threads, int passes, int milliseconds) {
  const ComputeLoop loop = best_fp32_loop();
  return {peak_of(loop, threads, passes, milliseconds), loop.instructions};
}

}  // namespace mobilemoe
