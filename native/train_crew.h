// The threads of training. PyTorch's OpenMP threads keep spinning for milliseconds after each of
// its operations, so others would fight with them for the cores: where the process has OpenMP,
// its threads compute here too.
#pragma once

#include <cstdint>

#include "thread_pool.h"

namespace mobilemoe {

// The OpenMP runtime that the process has loaded, by the entry points of the GNU ABI (which
// LLVM's runtime has as well).
struct OpenMp {
  void (*parallel)(void (*entry)(void*), void* context, unsigned threads, unsigned flags);
  int (*thread_num)();
  int (*num_threads)();
};

// Null where there is none.
const OpenMp* find_openmp();

// One thread's part of a region.
struct Part {
  int index, threads;

  // This thread's consecutive share of [0, count).
  Range share(int64_t count) const {
    return {count * index / threads, count * (index + 1) / threads};
  }
};

class Crew {
 public:
  explicit Crew(ThreadPool& pool) : pool_(&pool), threads_(pool.threads()) {}
  Crew(const OpenMp& openmp, int threads) : openmp_(&openmp), threads_(threads) {}

  // As many as a region has at most.
  int threads() const { return threads_; }

  // Calls `body(part)` once on each of 1 to threads() threads and returns when all are done.
  // `body` must not throw.
  template <class Body>
  void run(const Body& body) const {
    if (threads_ == 1) {
      body(Part{0, 1});
    } else if (pool_ != nullptr) {
      pool_->run([&](const Team& team) { body(Part{team.index(), team.threads()}); });
    } else {
      Region<Body> region{openmp_, &body};
      openmp_->parallel(&Region<Body>::enter, &region, static_cast<unsigned>(threads_), 0);
    }
  }

 private:
  template <class Body>
  struct Region {
    const OpenMp* openmp;
    const Body* body;

    static void enter(void* context) {
      const Region& region = *static_cast<const Region*>(context);
      (*region.body)(Part{region.openmp->thread_num(), region.openmp->num_threads()});
    }
  };

  ThreadPool* pool_ = nullptr;
  const OpenMp* openmp_ = nullptr;
  int threads_;
};

}  // namespace mobilemoe
