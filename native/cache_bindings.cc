// mobilemoe.engine._native.testing, continued: what stores and reads cached keys and values.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include <algorithm>
#include <vector>

#include "bindings.h"
#include "errors.h"
#include "kernels.h"
#include "kv_cache.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace mobilemoe {
namespace {

template <class T, size_t N>
using Array = nb::ndarray<const T, nb::ndim<N>, nb::c_contig, nb::device::cpu>;

int64_t dim(const auto& array, size_t axis) { return static_cast<int64_t>(array.shape(axis)); }

// A cache of one layer and one head that holds keys and values [N, d].
KvCache filled_cache(const Array<float, 2>& k, const Array<float, 2>& v) {
  Config config;
  config.num_hidden_layers = config.num_key_value_heads = 1;
  config.head_dim = dim(k, 1);
  KvCache cache(config, dim(k, 0), KvFormat::kInt8);
  for (int64_t n = 0; n < dim(k, 0); ++n) {
    const int64_t at = n * config.head_dim;
    cache.store(0, 0, n, k.data() + at, v.data() + at);
  }
  return cache;
}

// out [R, d] of int8 queries (see Int8Queries) over float keys and values [N, d] in a cache.
nb::object attend_int8(const Array<float, 2>& k, const Array<float, 2>& v,
                       const Array<int8_t, 2>& high, const Array<int8_t, 2>& low,
                       const Array<float, 1>& scales, const Array<int64_t, 1>& positions,
                       const std::string& kernel) {
  const int64_t N = dim(k, 0), d = dim(k, 1), rows = dim(high, 0);
  const bool sees = std::all_of(positions.data(), positions.data() + positions.size(),
                                [N](int64_t p) { return p >= 1 && p <= N; });
  const bool fits = N >= 1 && dim(v, 0) == N && dim(v, 1) == d && rows >= 1 &&
                    rows <= kMaxQueryRows && dim(high, 1) == d && dim(low, 0) == rows &&
                    dim(low, 1) == d && dim(scales, 0) == rows && dim(positions, 0) == rows;
  if (!sees || !fits) throw InvalidArgument("bad attention shapes");
  const KvCache cache = filled_cache(k, v);
  std::vector<float> out(static_cast<size_t>(rows * d));
  float* out_R[kMaxQueryRows];
  for (int64_t r = 0; r < rows; ++r) out_R[r] = out.data() + r * d;
  const Int8Queries queries{high.data(), low.data(), scales.data(), positions.data(), rows, d};
  choose_kernels(kernel).attend_int8(cache.int8(0, 0), queries, out_R);
  return to_numpy(std::move(out), {rows, d});
}

// The bits of F16.
nb::object to_half(const Array<float, 1>& x) {
  std::vector<uint16_t> halves(x.size());
  std::transform(x.data(), x.data() + x.size(), halves.begin(), float_to_half);
  return to_numpy(std::move(halves), {dim(x, 0)});
}

nb::object widen(const Array<uint16_t, 1>& halves, const std::string& kernel) {
  std::vector<float> out(halves.size());
  choose_kernels(kernel).widen_fp16(halves.data(), dim(halves, 0), out.data());
  return to_numpy(std::move(out), {dim(halves, 0)});
}

}  // namespace

void bind_cache(nb::module_& module) {
  module.def("attend_int8", &attend_int8, "k"_a, "v"_a, "high"_a, "low"_a, "scales"_a,
             "positions"_a, "kernel"_a);
  module.def("to_half", &to_half, "x"_a);
  module.def("widen", &widen, "halves"_a, "kernel"_a);
}

}  // namespace mobilemoe
