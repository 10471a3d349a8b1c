// mobilemoe.kernels._training: what is done with rows besides products.
#include <algorithm>

#include "train_bindings.h"
#include "train_norm.h"
#include "train_rows.h"

using namespace nanobind::literals;

namespace mobilemoe {
namespace {

using Vector = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using OutputVector = nb::ndarray<float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Ids = nb::ndarray<const int64_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using OutputIds = nb::ndarray<int64_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Targets = nb::ndarray<const int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Order = nb::ndarray<int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

void require_between(const auto& ids, int64_t low, int64_t high) {
  const bool fits = std::all_of(ids.data(), ids.data() + ids.size(),
                                [&](int64_t id) { return low <= id && id < high; });
  require(fits, "an index is out of range");
}

void bound_choose(const Input<2>& scores, const OutputIds& ids, int threads) {
  const int64_t tokens = dim(scores, 0), experts = dim(scores, 1), k = dim(ids, 1);
  require(dim(ids, 0) == tokens && 1 <= k && k <= experts, kShapes);
  on_crew(threads, [&](const Crew& crew) {
    choose_experts(crew, scores.data(), tokens, experts, k, ids.data());
  });
}

void bound_sort(const Ids& ids, int64_t experts, const Order& order) {
  require(ids.size() == order.size() && experts >= 1, kShapes);
  require_between(ids, 0, experts);
  const nb::gil_scoped_release release;
  sort_by_expert(ids.data(), static_cast<int64_t>(ids.size()), experts, order.data());
}

Combine combine_of(const Input<2>& x, const Ids& slots, const Input<2>* weights) {
  require_between(slots, -1, dim(x, 0));
  require(weights == nullptr || are(*weights, dim(slots, 0), dim(slots, 1)), kShapes);
  return {dim(slots, 0), dim(slots, 1), dim(x, 1), x.data(), slots.data(),
          weights == nullptr ? nullptr : weights->data()};
}

void bound_sum(const Input<2>& x, const Ids& slots, const Output<2>& y, int threads) {
  const Combine sums = combine_of(x, slots, nullptr);
  require(are(y, sums.tokens, sums.width), kShapes);
  on_crew(threads, [&](const Crew& crew) {
    combine_rows(crew, sums, y.data());
  });
}

void bound_combine(const Input<2>& x, const Ids& slots, const Input<2>& weights,
                   const Output<2>& y, int threads) {
  const Combine sums = combine_of(x, slots, &weights);
  require(are(y, sums.tokens, sums.width), kShapes);
  on_crew(threads, [&](const Crew& crew) {
    combine_rows(crew, sums, y.data());
  });
}

void bound_combine_gradient(const Input<2>& x, const Ids& slots, const Input<2>& weights,
                            const Input<2>& grad_y, const Output<2>& grad_x,
                            const Output<2>& grad_weights, int threads) {
  const Combine sums = combine_of(x, slots, &weights);
  require(are(grad_y, sums.tokens, sums.width) && are(grad_x, dim(x, 0), sums.width) &&
              are(grad_weights, sums.tokens, sums.k), kShapes);
  on_crew(threads, [&](const Crew& crew) {
    combine_rows_gradient(crew, sums, grad_y.data(), grad_x.data(), grad_weights.data());
  });
}

void bound_swiglu(const Input<2>& gate, const Input<2>& up, const Output<2>& a, int threads) {
  const int64_t rows = dim(gate, 0), width = dim(gate, 1);
  require(are(up, rows, width) && are(a, rows, width), kShapes);
  on_crew(threads, nb::str("auto"), [&](const Crew& crew, const GemmKernels& kernels) {
    swiglu(crew, kernels, rows * width, gate.data(), up.data(), a.data());
  });
}

void bound_swiglu_gradient(const Input<2>& gate, const Input<2>& up, const Input<2>& grad_a,
                           const Output<2>& grad_gate, const Output<2>& grad_up, int threads) {
  const int64_t rows = dim(gate, 0), width = dim(gate, 1);
  require(are(up, rows, width) && are(grad_a, rows, width) && are(grad_gate, rows, width) &&
              are(grad_up, rows, width), kShapes);
  on_crew(threads, nb::str("auto"), [&](const Crew& crew, const GemmKernels& kernels) {
    swiglu_gradient(crew, kernels, {rows * width, gate.data(), up.data(), grad_a.data(),
                                    grad_gate.data(), grad_up.data()});
  });
}

void bound_cross_entropy(const Output<2>& logits, const Targets& targets,
                         const OutputVector& losses, int threads, const nb::str& kernel) {
  const int64_t rows = dim(logits, 0), width = dim(logits, 1);
  require(width > 0 && dim(targets, 0) == rows && dim(losses, 0) == rows, kShapes);
  require_between(targets, 0, width);
  on_crew(threads, kernel, [&](const Crew& crew, const GemmKernels& kernels) {
    cross_entropy_rows(crew, kernels,
                       {rows, width, targets.data(), logits.data(), losses.data()});
  });
}

Norm norm_of(const Input<2>& x, const Vector& weight, float* factors, size_t count) {
  require(dim(x, 1) > 0 && dim(weight, 0) == dim(x, 1) && count == x.shape(0), kShapes);
  return {dim(x, 0), dim(x, 1), x.data(), weight.data(), factors};
}

void bound_norm(const Input<2>& x, const Vector& weight, float eps, const OutputVector& factors,
                const Output<2>& y, int threads) {
  const Norm norm = norm_of(x, weight, factors.data(), factors.size());
  require(are(y, norm.rows, norm.width), kShapes);
  on_crew(threads, [&](const Crew& crew) { rms_norm_rows(crew, norm, eps, y.data()); });
}

void bound_norm_gradient(const Input<2>& x, const Vector& weight, const OutputVector& factors,
                         const Input<2>& grad_y, const Output<2>& grad_x,
                         const OutputVector& grad_weight, int threads) {
  const Norm norm = norm_of(x, weight, factors.data(), factors.size());
  require(are(grad_y, norm.rows, norm.width) && are(grad_x, norm.rows, norm.width) &&
              dim(grad_weight, 0) == norm.width, kShapes);
  on_crew(threads, [&](const Crew& crew) {
    rms_norm_rows_gradient(crew, norm, grad_y.data(), grad_x.data(), grad_weight.data());
  });
}

// `moved` is [B, H, T, d] where x is [B, T, H, d].
Heads heads_of(const Input<4>& x, const Input<2>& cosines, const Input<2>& sines,
               const OutputVector& factors, const auto& moved) {
  const int64_t B = dim(x, 0), T = dim(x, 1), H = dim(x, 2), d = dim(x, 3);
  require(d > 0 && d % 2 == 0 && are(cosines, T, d / 2) && are(sines, T, d / 2) &&
              dim(factors, 0) == B * T * H, kShapes);
  require(dim(moved, 0) == B && dim(moved, 1) == H && dim(moved, 2) == T && dim(moved, 3) == d,
          kShapes);
  return {B, T, H, d, x.data(), cosines.data(), sines.data(), factors.data()};
}

void bound_rotate(const Input<4>& x, const Input<2>& cosines, const Input<2>& sines, float eps,
                  const OutputVector& factors, const Output<4>& y, int threads) {
  const Heads heads = heads_of(x, cosines, sines, factors, y);
  on_crew(threads, [&](const Crew& crew) { rotate_heads(crew, heads, eps, y.data()); });
}

void bound_rotate_gradient(const Input<4>& x, const Input<2>& cosines, const Input<2>& sines,
                           const OutputVector& factors, const Input<4>& grad_y,
                           const Output<4>& grad_x, int threads) {
  const Heads heads = heads_of(x, cosines, sines, factors, grad_y);
  for (size_t axis = 0; axis < 4; ++axis) require(grad_x.shape(axis) == x.shape(axis), kShapes);
  on_crew(threads, [&](const Crew& crew) {
    rotate_heads_gradient(crew, heads, grad_y.data(), grad_x.data());
  });
}

}  // namespace

void bind_rows(nb::module_& module) {
  module.def("choose_experts", &bound_choose, "scores"_a, "ids"_a, "threads"_a);
  module.def("sort_by_expert", &bound_sort, "ids"_a, "experts"_a, "order"_a);
  module.def("sum_rows", &bound_sum, "x"_a, "slots"_a, "y"_a, "threads"_a);
  module.def("combine_rows", &bound_combine, "x"_a, "slots"_a, "weights"_a, "y"_a, "threads"_a);
  module.def("combine_rows_gradient", &bound_combine_gradient, "x"_a, "slots"_a, "weights"_a,
             "grad_y"_a, "grad_x"_a, "grad_weights"_a, "threads"_a);
  module.def("swiglu", &bound_swiglu, "gate"_a, "up"_a, "a"_a, "threads"_a);
  module.def("swiglu_gradient", &bound_swiglu_gradient, "gate"_a, "up"_a, "grad_a"_a,
             "grad_gate"_a, "grad_up"_a, "threads"_a);
  module.def("cross_entropy", &bound_cross_entropy, "logits"_a, "targets"_a, "losses"_a,
             "threads"_a, "kernel"_a = "auto");
  module.def("rms_norm", &bound_norm, "x"_a, "weight"_a, "eps"_a, "factors"_a, "y"_a,
             "threads"_a);
  module.def("rms_norm_gradient", &bound_norm_gradient, "x"_a, "weight"_a, "factors"_a,
             "grad_y"_a, "grad_x"_a, "grad_weight"_a, "threads"_a);
  module.def("rotate_heads", &bound_rotate, "x"_a, "cosines"_a, "sines"_a, "eps"_a, "factors"_a,
             "y"_a, "threads"_a);
  module.def("rotate_heads_gradient", &bound_rotate_gradient, "x"_a, "cosines"_a, "sines"_a,
             "factors"_a, "grad_y"_a, "grad_x"_a, "threads"_a);
}

}  // namespace mobilemoe
