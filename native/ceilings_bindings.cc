// mobilemoe.engine._native.ceilings: what the machine can do at most.
#include <nanobind/nanobind.h>

#include "ceilings.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace mobilemoe {
namespace {

double read_speed(int64_t bytes, int threads, int passes) {
  const nb::gil_scoped_release release;
  return read_gb_s(bytes, threads, passes);
}

// (10^9 multiply-adds per second, name of the instructions)
nb::tuple peak(ComputePeak (*measure)(int, int, int), int threads, int passes, int milliseconds) {
  ComputePeak result;
  {
    const nb::gil_scoped_release release;
    result = measure(threads, passes, milliseconds);
  }
  return nb::make_tuple(result.gmac_s, result.instructions);
}

}  // namespace

void bind_ceilings(nb::module_& module) {
  module.def("read_gb_s", &read_speed, "bytes"_a, "threads"_a, "passes"_a);
  module.def("int8_gmac_s", [](int threads, int passes, int milliseconds) {
    return peak(&int8_peak, threads, passes, milliseconds);
  }, "threads"_a, "passes"_a, "milliseconds"_a);
  module.def("fp32_gmac_s", [](int threads, int passes, int milliseconds) {
    return peak(&fp32_peak, threads, passes, milliseconds);
  }, "threads"_a, "passes"_a, "milliseconds"_a);
}

}  // namespace mobilemoe
