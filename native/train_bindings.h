// Shared by the binding files of mobilemoe.kernels._training: arguments, and where a call computes.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <memory>
#include <mutex>

#include "errors.h"
#include "thread_pool.h"
#include "train_crew.h"
#include "train_gemm.h"

namespace mobilemoe {

namespace nb = nanobind;

template <size_t N>
using Input = nb::ndarray<const float, nb::ndim<N>, nb::c_contig, nb::device::cpu>;
template <size_t N>
using Output = nb::ndarray<float, nb::ndim<N>, nb::c_contig, nb::device::cpu>;

inline int64_t dim(const auto& array, size_t axis) {
  return static_cast<int64_t>(array.shape(axis));
}

inline void require(bool fits, const char* message) {
  if (!fits) throw InvalidArgument(message);
}

// Our own threads, for a process without OpenMP: one pool, made anew for another number.
class SharedPool {
 public:
  explicit SharedPool(int threads) : lock_(mutex()) {
    std::unique_ptr<ThreadPool>& kept = pool();
    if (!kept || kept->threads() != threads || !kept->usable()) {
      kept.reset();
      kept = std::make_unique<ThreadPool>(threads);
    }
  }
  ThreadPool& operator*() const { return *pool(); }

 private:
  static std::mutex& mutex() {
    static std::mutex mutex;
    return mutex;
  }
  static std::unique_ptr<ThreadPool>& pool() {
    static std::unique_ptr<ThreadPool> pool;
    return pool;
  }
  std::lock_guard<std::mutex> lock_;
};

// Calls `body(crew)` with 1 to 1024 threads, Python's lock released.
template <class Compute>
void on_crew(int threads, const Compute& body) {
  require(threads >= 1 && threads <= 1024, "threads must be 1 to 1024");
  const nb::gil_scoped_release release;
  if (const OpenMp* openmp = find_openmp()) {
    body(Crew(*openmp, threads));
  } else {
    const SharedPool pool(threads);
    body(Crew(*pool));
  }
}

// Likewise, with the table that `kernel` names.
template <class Compute>
void on_crew(int threads, const nb::str& kernel, const Compute& body) {
  const GemmKernels& kernels = choose_gemm(kernel.c_str());
  on_crew(threads, [&](const Crew& crew) { body(crew, kernels); });
}

inline bool are(const auto& array, int64_t rows, int64_t columns) {
  return dim(array, 0) == rows && dim(array, 1) == columns;
}

inline constexpr const char* kShapes = "the arrays do not have the shapes of one operation";

void bind_attention(nb::module_& module);
void bind_rows(nb::module_& module);

}  // namespace mobilemoe
