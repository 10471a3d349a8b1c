#include <dlfcn.h>

#include "train_crew.h"

namespace mobilemoe {
namespace {

template <class Function>
bool find(const char* name, Function& function) {
  function = reinterpret_cast<Function>(::dlsym(RTLD_DEFAULT, name));
  return function != nullptr;
}

}  // namespace

const OpenMp* find_openmp() {
  static OpenMp openmp{};
  static const bool found = find("GOMP_parallel", openmp.parallel) &&
                            find("omp_get_thread_num", openmp.thread_num) &&
                            find("omp_get_num_threads", openmp.num_threads);
  return found ? &openmp : nullptr;
}

}  // namespace mobilemoe
