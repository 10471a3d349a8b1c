// Persistent worker threads that split an index range in a fixed way.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace mobilemoe {

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

  // Calls `body(begin, end, thread)` once per thread, over consecutive shares of [0, count);
  // empty shares are skipped. Returns when all are done. `body` must not throw, and one
  // parallel region runs at a time: hold `mutex()` around a computation.
  template <class Body>
  void parallel_for(int64_t count, const Body& body) {
    run([](const void* context, int64_t begin, int64_t end, int thread) {
      (*static_cast<const Body*>(context))(begin, end, thread);
    }, &body, count);
  }

  // The same for cheap work per token: a single token is not worth waking anybody.
  template <class Body>
  void for_tokens(int64_t tokens, const Body& body) {
    if (tokens == 1) {
      body(0, 1, 0);
    } else {
      parallel_for(tokens, body);
    }
  }

  std::mutex& mutex() { return mutex_; }

 private:
  using Entry = void (*)(const void* body, int64_t begin, int64_t end, int thread);

  void run(Entry entry, const void* body, int64_t count);
  void run_share(int thread) const;
  void work(int thread);
  void stop();

  const int threads_;
  const pid_t owner_;
  std::mutex mutex_;
  std::vector<std::thread> workers_;
  Entry entry_ = nullptr;
  const void* body_ = nullptr;
  int64_t count_ = 0;
  bool stopping_ = false;
  std::atomic<uint32_t> generation_{0};  // grows by one per region; workers wait on it
  std::atomic<int32_t> unfinished_{0};   // workers still inside the region
};

}  // namespace mobilemoe
