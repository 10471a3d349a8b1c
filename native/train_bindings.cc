// The Python module mobilemoe.kernels._training: float32 products of training over arrays that
// live elsewhere (torch CPU tensors); its types are declared in _training.pyi.
#include <vector>

#include "train_bindings.h"
#include "train_experts.h"

using namespace nanobind::literals;

namespace mobilemoe {
namespace {

// Loads per expert, which must be the rows that there are.
std::vector<int64_t> counts_from(const nb::sequence& list, int64_t experts, int64_t rows) {
  std::vector<int64_t> counts;
  int64_t total = 0;
  for (const nb::handle item : list) {
    counts.push_back(nb::cast<int64_t>(item));
    require(counts.back() >= 0 && counts.back() <= rows, "counts must be 0 to N");
    total += counts.back();
  }
  require(static_cast<int64_t>(counts.size()) == experts, "counts must hold one number per expert");
  require(total == rows, "counts must sum to the number of rows");
  return counts;
}

void bound_product(const Input<2>& x, const nb::sequence& list, const Input<3>& w, bool transposed,
                   const Output<2>& y, int threads, const nb::str& kernel) {
  const int64_t rows = dim(x, 0), inputs = dim(x, 1), outputs = dim(y, 1);
  require(inputs > 0 && dim(y, 0) == rows && dim(w, transposed ? 2 : 1) == inputs &&
              dim(w, transposed ? 1 : 2) == outputs, kShapes);
  const std::vector<int64_t> counts = counts_from(list, dim(w, 0), rows);
  on_crew(threads, kernel, [&](const Crew& crew, const GemmKernels& kernels) {
    grouped_product(crew, kernels, counts,
                    {inputs, outputs, transposed, x.data(), w.data(), y.data()});
  });
}

void bound_outer(const Input<2>& x, const nb::sequence& list, const Input<2>& y,
                 const Output<3>& w, int threads, const nb::str& kernel) {
  const int64_t rows = dim(x, 0), inputs = dim(x, 1), outputs = dim(y, 1);
  require(dim(y, 0) == rows && dim(w, 1) == inputs && dim(w, 2) == outputs, kShapes);
  const std::vector<int64_t> counts = counts_from(list, dim(w, 0), rows);
  on_crew(threads, kernel, [&](const Crew& crew, const GemmKernels& kernels) {
    grouped_outer(crew, kernels, counts, {inputs, outputs, x.data(), y.data(), w.data()});
  });
}

bool is_layer(const auto& x, const auto& gate_up, const auto& down) {
  const int64_t D = dim(x, 1), F = dim(down, 1);
  return D > 0 && F > 0 && dim(gate_up, 0) == dim(down, 0) && dim(gate_up, 1) == D && dim(gate_up, 2) == 2 * F &&
         dim(down, 2) == D;
}

bool same(const auto& a, const auto& b) {
  return dim(a, 0) == dim(b, 0) && dim(a, 1) == dim(b, 1) && dim(a, 2) == dim(b, 2);
}

void bound_forward(const Input<2>& x, const nb::sequence& list, const Input<3>& gate_up,
                   const Input<3>& down, const Output<2>& h, const Output<2>& y, int threads,
                   const nb::str& kernel) {
  const int64_t N = dim(x, 0), D = dim(x, 1), F = dim(down, 1);
  require(is_layer(x, gate_up, down) && are(h, N, 2 * F) && are(y, N, D), kShapes);
  const std::vector<int64_t> counts = counts_from(list, dim(down, 0), N);
  on_crew(threads, kernel, [&](const Crew& crew, const GemmKernels& kernels) {
    experts_forward(crew, kernels, counts,
                    {D, F, x.data(), gate_up.data(), down.data(), h.data(), y.data()});
  });
}

void bound_backward(const Input<2>& x, const nb::sequence& list, const Input<3>& gate_up,
                    const Input<3>& down, const Input<2>& h, const Input<2>& grad_y,
                    const Output<2>& grad_x, const Output<3>& grad_gate_up,
                    const Output<3>& grad_down, int threads, const nb::str& kernel) {
  const int64_t N = dim(x, 0), D = dim(x, 1), F = dim(down, 1);
  require(is_layer(x, gate_up, down) && are(h, N, 2 * F) && are(grad_y, N, D) &&
              are(grad_x, N, D) && same(grad_gate_up, gate_up) && same(grad_down, down), kShapes);
  const std::vector<int64_t> counts = counts_from(list, dim(down, 0), N);
  on_crew(threads, kernel, [&](const Crew& crew, const GemmKernels& kernels) {
    experts_backward(crew, kernels, counts,
                     {D, F, x.data(), h.data(), gate_up.data(), down.data(), grad_y.data(),
                      grad_x.data(), grad_gate_up.data(), grad_down.data()});
  });
}

nb::list kernel_names() {
  nb::list names;
  for (const std::string& name : available_gemms()) names.append(name.c_str());
  return names;
}

}  // namespace
}  // namespace mobilemoe

NB_MODULE(_training, module) {
  using namespace mobilemoe;
  module.doc() = "The float32 products of training on a CPU.";
  module.def("grouped_product", &bound_product, "x"_a, "counts"_a, "w"_a, "transposed"_a, "y"_a,
             "threads"_a, "kernel"_a = "auto");
  module.def("grouped_outer", &bound_outer, "x"_a, "counts"_a, "y"_a, "w"_a, "threads"_a,
             "kernel"_a = "auto");
  module.def("experts_forward", &bound_forward, "x"_a, "counts"_a, "gate_up"_a, "down"_a, "h"_a,
             "y"_a, "threads"_a, "kernel"_a = "auto");
  module.def("experts_backward", &bound_backward, "x"_a, "counts"_a, "gate_up"_a, "down"_a, "h"_a,
             "grad_y"_a, "grad_x"_a, "grad_gate_up"_a, "grad_down"_a, "threads"_a,
             "kernel"_a = "auto");
  module.def("kernels", &kernel_names);
  bind_attention(module);
  bind_rows(module);
}
