#include "thread_pool.h"

#include <unistd.h>

#include <utility>

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif

namespace mobilemoe {
namespace {

void pause() {
#if defined(__x86_64__) || defined(__i386__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Regions and barriers follow each other within microseconds, so a short spin usually saves a
// wake-up; after it the thread sleeps and an idle engine costs nothing.
template <class T>
void wait_while_equal(const std::atomic<T>& value, T old, ReadAhead ahead = {}) {
  constexpr int kSpins = 4000;
  for (int i = 0; i < kSpins; ++i) {
    if (value.load(std::memory_order_acquire) != old) return;
    ahead.step();
    pause();
  }
  value.wait(old, std::memory_order_acquire);
}

}  // namespace

ThreadPool::ThreadPool(int threads) : threads_(threads), owner_(::getpid()) {
  try {
    for (int thread = 1; thread < threads; ++thread) {
      workers_.emplace_back([this, thread] { work(thread); });
    }
  } catch (...) {
    stop();
    throw;
  }
}

ThreadPool::~ThreadPool() { stop(); }

bool ThreadPool::usable() const { return workers_.empty() || owner_ == ::getpid(); }

void ThreadPool::stop() {
  if (!usable()) {
    // Handles of threads that this process never had can be neither joined nor destroyed.
    static_cast<void>(new std::vector<std::thread>(std::move(workers_)));
    return;
  }
  stopping_ = true;
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::run(Entry entry, const void* body) {
  entry_ = entry;
  body_ = body;
  next_.store(0, std::memory_order_relaxed);
  unfinished_.store(threads_ - 1, std::memory_order_relaxed);
  generation_.fetch_add(1, std::memory_order_release);
  if (threads_ > 1) generation_.notify_all();
  entry(body, Team(*this, 0, threads_));
  for (int32_t left = unfinished_.load(std::memory_order_acquire); left != 0;
       left = unfinished_.load(std::memory_order_acquire)) {
    wait_while_equal(unfinished_, left);
  }
}

void ThreadPool::barrier(ReadAhead ahead) {
  const uint32_t phase = phase_.load(std::memory_order_relaxed);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 < threads_) {
    wait_while_equal(phase_, phase, ahead);
    return;
  }
  arrived_.store(0, std::memory_order_relaxed);
  next_.store(0, std::memory_order_relaxed);
  phase_.fetch_add(1, std::memory_order_release);
  phase_.notify_all();
}

void ThreadPool::work(int thread) {
  for (uint32_t seen = 0;;) {
    wait_while_equal(generation_, seen);
    ++seen;
    if (stopping_) return;
    entry_(body_, Team(*this, thread, threads_));
    if (unfinished_.fetch_sub(1, std::memory_order_acq_rel) == 1) unfinished_.notify_one();
  }
}

}  // namespace mobilemoe
