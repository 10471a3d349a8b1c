// What a team of threads shares: barriers, numbers to take, shares.
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "checks.h"
#include "compare.h"
#include "thread_pool.h"

namespace mobilemoe::check {
namespace {

// All memory here is plain: what a barrier does not order is a race.
constexpr int64_t kRounds = 64;

std::string describe(const ThreadPool& pool, const char* what) {
  return std::to_string(pool.threads()) + " threads, " + what;
}

void expect_none(const std::string& what, const std::vector<int32_t>& wrong) {
  expect_same(what, wrong, std::vector<int32_t>(wrong.size(), 0));
}

// Now and then one thread is late, and the others wait beyond their spins.
void be_late(const Team& team, int64_t round) {
  if (round % 16 == 5 && round / 16 % team.threads() == team.index()) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
}

// Of nothing, of less than a line, of whole lines and more.
ReadAhead ahead_of(const std::vector<char>& memory, int64_t round) {
  constexpr int64_t kBytes[] = {0, 1, 63, 64, 65, 128, 1000};
  if (round % 8 == 7) return {};
  return {memory.data(), kBytes[round % 8]};
}

// Everyone sees what all wrote before the barrier, and nobody what is written after the next.
void check_barriers(ThreadPool& pool) {
  const auto threads = static_cast<size_t>(pool.threads());
  const std::vector<char> memory(1000);
  std::vector<int64_t> written(threads);
  std::vector<int32_t> wrong(threads);
  pool.run([&](const Team& team) {
    const auto me = static_cast<size_t>(team.index());
    for (int64_t round = 1; round <= kRounds; ++round) {
      be_late(team, round);
      written[me] = round;
      team.barrier(ahead_of(memory, round));
      for (const int64_t value : written) wrong[me] += value == round ? 0 : 1;
      team.barrier(ahead_of(memory, round + 3));
    }
  });
  expect_none(describe(pool, "barriers"), wrong);
}

// Each number goes to one thread, from 0 again after a barrier and in the next region.
void check_take(ThreadPool& pool) {
  constexpr int64_t kCounts[] = {0, 1, 5, 64};
  std::vector<int32_t> taken(64), wrong(static_cast<size_t>(pool.threads()));
  for (int region = 0; region < 5; ++region) {
    pool.run([&](const Team& team) {
      for (int64_t round = 0; round < 20; ++round) {
        const int64_t count = kCounts[round % 4];
        for (int64_t i = team.take(); i < count; i = team.take()) ++taken[static_cast<size_t>(i)];
        team.barrier();
        const Range share = team.share(64);
        for (int64_t i = share.begin; i < share.end; ++i) {
          int32_t& times = taken[static_cast<size_t>(i)];
          if (times != (i < count ? 1 : 0)) ++wrong[static_cast<size_t>(team.index())];
          times = 0;
        }
        team.barrier();
      }
    });
  }
  expect_none(describe(pool, "numbers taken"), wrong);
}

// The pieces of all threads are every column of every row, once.
void check_pieces(ThreadPool& pool, int64_t rows, int64_t columns) {
  std::vector<int32_t> off(static_cast<size_t>(rows * columns), -1);
  std::vector<int32_t> wrong(static_cast<size_t>(pool.threads()));
  pool.run([&](const Team& team) {
    for_row_pieces(team, rows, columns, [&](int64_t row, int64_t begin, int64_t end) {
      const bool fits = 0 <= row && row < rows && 0 <= begin && begin < end && end <= columns;
      if (!fits) {
        ++wrong[static_cast<size_t>(team.index())];
        return;
      }
      for (int64_t i = begin; i < end; ++i) ++off[static_cast<size_t>(row * columns + i)];
    });
  });
  expect_none(describe(pool, "pieces"), wrong);
  expect_none(describe(pool, "columns of the pieces"), off);
}

// A region is complete when `run` returns, and sees what was written before it.
void check_regions(ThreadPool& pool) {
  std::vector<int32_t> value(static_cast<size_t>(pool.threads()));
  for (int32_t region = 1; region <= kRounds; ++region) {
    pool.run([&](const Team& team) { --value[static_cast<size_t>(team.index())]; });
    for (int32_t& one : value) ++one;
  }
  expect_none(describe(pool, "regions"), value);
}

}  // namespace

int64_t check_team(const Kernels&, Sizes) {
  int64_t cases = 0;
  for (const int threads : {1, 2, 3, 4, 7}) {
    ThreadPool pool(threads);
    check_barriers(pool);
    check_take(pool);
    check_regions(pool);
    for (const int64_t rows : {0, 1, 2, 5, 61}) {
      for (const int64_t columns : {1, 2, 3, 8}) check_pieces(pool, rows, columns);
    }
    cases += 23;
  }
  return cases;
}

}  // namespace mobilemoe::check
