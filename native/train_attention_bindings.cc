// mobilemoe.kernels._training: causal attention.
#include "train_attention.h"
#include "train_bindings.h"

using namespace nanobind::literals;

namespace mobilemoe {
namespace {

using Sums = nb::ndarray<const float, nb::ndim<3>, nb::c_contig, nb::device::cpu>;

bool has_shape(const auto& array, int64_t a, int64_t b, int64_t c, int64_t d) {
  return dim(array, 0) == a && dim(array, 1) == b && dim(array, 2) == c && dim(array, 3) == d;
}

Attention attention_of(const Input<4>& q, const Input<4>& k, const Input<4>& v, float scale) {
  const int64_t B = dim(q, 0), H = dim(q, 1), T = dim(q, 2), d = dim(q, 3), G = dim(k, 1);
  require(G > 0 && H % G == 0 && d > 0 && scale > 0, kShapes);
  require(has_shape(k, B, G, T, d) && has_shape(v, B, G, T, d), kShapes);
  return {B, H, G, T, d, scale, q.data(), k.data(), v.data()};
}

void require_sums(const auto& sums, const Attention& a) {
  require(dim(sums, 0) == a.batch && dim(sums, 1) == a.heads && dim(sums, 2) == a.tokens, kShapes);
}

void bound_attend(const Input<4>& q, const Input<4>& k, const Input<4>& v, float scale,
                  const Output<4>& o, const Output<3>& sums, int threads, const nb::str& kernel) {
  const Attention a = attention_of(q, k, v, scale);
  require(has_shape(o, a.batch, a.tokens, a.heads, a.d), kShapes);
  require_sums(sums, a);
  on_crew(threads, kernel, [&](const Crew& crew, const GemmKernels& kernels) {
    attend(crew, kernels, a, o.data(), sums.data());
  });
}

void bound_attend_gradient(const Input<4>& q, const Input<4>& k, const Input<4>& v, float scale,
                           const Sums& sums, const Input<4>& grad_o, const Output<4>& grad_q,
                           const Output<4>& grad_k, const Output<4>& grad_v, int threads,
                           const nb::str& kernel) {
  const Attention a = attention_of(q, k, v, scale);
  require_sums(sums, a);
  require(has_shape(grad_o, a.batch, a.tokens, a.heads, a.d) &&
              has_shape(grad_q, a.batch, a.heads, a.tokens, a.d) &&
              has_shape(grad_k, a.batch, a.groups, a.tokens, a.d) &&
              has_shape(grad_v, a.batch, a.groups, a.tokens, a.d), kShapes);
  on_crew(threads, kernel, [&](const Crew& crew, const GemmKernels& kernels) {
    attend_gradient(crew, kernels, a,
                    {grad_o.data(), sums.data(), grad_q.data(), grad_k.data(), grad_v.data()});
  });
}

}  // namespace

void bind_attention(nb::module_& module) {
  module.def("attend", &bound_attend, "q"_a, "k"_a, "v"_a, "scale"_a, "o"_a, "sums"_a,
             "threads"_a, "kernel"_a = "auto");
  module.def("attend_gradient", &bound_attend_gradient, "q"_a, "k"_a, "v"_a, "scale"_a, "sums"_a,
             "grad_o"_a, "grad_q"_a, "grad_k"_a, "grad_v"_a, "threads"_a, "kernel"_a = "auto");
}

}  // namespace mobilemoe
