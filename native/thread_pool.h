// Persistent worker threads that run one function together.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace mobilemoe {

class ThreadPool;

struct Range {
  int64_t begin, end;
};

// Memory that a thread will read next. Whoever waits for others asks for it line by line, so that
// the memory does not idle meanwhile.
class ReadAhead {
 public:
  ReadAhead() = default;
  ReadAhead(const void* begin, int64_t bytes)
      : at_(static_cast<const char*>(begin)), end_(at_ + bytes) {}

  // Asks for one more line.
  void step() {
    if (at_ == end_) return;
    __builtin_prefetch(at_, 0, 1);
    at_ = end_ - at_ > kLine ? at_ + kLine : end_;
  }

 private:
  static constexpr int64_t kLine = 64;
  const char* at_ = nullptr;
  const char* end_ = nullptr;
};

// One thread's view of a region that all threads of a pool run together. What is shared before
// the region, or written before a barrier, may be read after it.
class Team {
 public:
  Team(ThreadPool& pool, int index, int threads) : pool_(&pool), index_(index), threads_(threads) {}

  int index() const { return index_; }
  int threads() const { return threads_; }
  // Whether this is the thread that does what one thread is enough for.
  bool leads() const { return index_ == 0; }

  // Returns when every thread of the team has come here; `ahead` is what this one reads next.
  void barrier(ReadAhead ahead = {}) const;
  // This thread's consecutive share of [0, count).
  Range share(int64_t count) const {
    return {count * index_ / threads_, count * (index_ + 1) / threads_};
  }
  // 0, 1, 2 ...: each number goes to one thread; from 0 again after a barrier.
  int64_t take() const;

 private:
  ThreadPool* pool_;
  int index_, threads_;
};

class ThreadPool {
 public:
  // `threads` counts the calling thread; at least 1.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return threads_; }
  // False in a process that was forked after the pool was made: its workers stayed behind.
  bool usable() const;

  // Calls `body(team)` once on every thread and returns when all are done. `body` must not
  // throw, every thread must pass the same barriers, and one region runs at a time: hold
  // `mutex()` around a computation.
  template <class Body>
  void run(const Body& body) {
    run([](const void* context, const Team& team) { (*static_cast<const Body*>(context))(team); },
        &body);
  }

  std::mutex& mutex() { return mutex_; }

 private:
  friend class Team;
  using Entry = void (*)(const void* body, const Team& team);

  void run(Entry entry, const void* body);
  void barrier(ReadAhead ahead);
  void work(int thread);
  void stop();

  const int threads_;
  const pid_t owner_;
  std::mutex mutex_;
  std::vector<std::thread> workers_;
  Entry entry_ = nullptr;
  const void* body_ = nullptr;
  bool stopping_ = false;
  // On lines of their own: threads spin on the first three.
  alignas(64) std::atomic<uint32_t> generation_{0};  // grows by one per region
  alignas(64) std::atomic<int32_t> unfinished_{0};   // workers still inside the region
  alignas(64) std::atomic<uint32_t> phase_{0};       // grows by one per barrier
  alignas(64) std::atomic<int32_t> arrived_{0};      // threads that wait at the barrier
  std::atomic<int64_t> next_{0};                     // what `take` gives next
};

inline void Team::barrier(ReadAhead ahead) const {
  if (threads_ > 1) {
    pool_->barrier(ahead);
  } else {
    pool_->next_.store(0, std::memory_order_relaxed);
  }
}

inline int64_t Team::take() const { return pool_->next_.fetch_add(1, std::memory_order_relaxed); }

// Calls `body(row, begin, end)` for this thread's part of `rows` rows of `columns` columns: whole
// rows, except where a row is shared with the next thread.
template <class Body>
void for_row_pieces(const Team& team, int64_t rows, int64_t columns, const Body& body) {
  const Range all = team.share(rows * columns);
  for (int64_t at = all.begin; at < all.end;) {
    const int64_t row = at / columns, begin = at % columns;
    const int64_t end = row == all.end / columns ? all.end % columns : columns;
    body(row, begin, end);
    at = row * columns + end;
  }
}

}  // namespace mobilemoe
