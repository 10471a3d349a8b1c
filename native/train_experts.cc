#include "train_experts.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <numeric>
#include <vector>

#include "train_tasks.h"

namespace mobilemoe {
namespace {

std::vector<Workspace> workspaces(const Crew& crew, const GemmKernels& kernels,
                                  int64_t columns, int64_t floats) {
  std::vector<Workspace> spaces;
  for (int thread = 0; thread < crew.threads(); ++thread) {
    spaces.emplace_back(kernels, columns, floats);
  }
  return spaces;
}

// Calls `work(task, workspace)` for every task, on whichever thread is free first.
template <class Task, class Work>
void share(const Crew& crew, const std::vector<Task>& tasks, std::vector<Workspace>& spaces,
           const Work& work) {
  std::atomic<size_t> next{0};
  crew.run([&](const Part& thread) {
    Workspace& space = spaces[static_cast<size_t>(thread.index)];
    for (size_t i = next++; i < tasks.size(); i = next++) work(tasks[i], space);
  });
}

void forward_rows(const GemmKernels& kernels, const ExpertsForward& layer, const RowTask& task,
                  Workspace& space) {
  const int64_t D = layer.hidden, F = layer.width, rows = task.end - task.begin;
  float* h = layer.h_NF + task.begin * 2 * F;
  float* a = space.floats();
  space.multiply(layer.x_ND + task.begin * D, rows, D,
                 layer.gate_up_EDF + task.expert * D * 2 * F, false, 2 * F, h);
  for (int64_t r = 0; r < rows; ++r) {
    const float* gate = h + r * 2 * F;
    kernels.swiglu(gate, gate + F, F, a + r * F);
  }
  space.multiply(a, rows, F, layer.down_EFD + task.expert * F * D, false, D,
                 layer.y_ND + task.begin * D);
}

// The gradients that belong to rows: of x, and of h with its activations a, for the weights.
void backward_rows(const GemmKernels& kernels, const ExpertsBackward& layer, const RowTask& task,
                   float* a_NF, float* grad_h_NF, Workspace& space) {
  const int64_t D = layer.hidden, F = layer.width, rows = task.end - task.begin;
  float* grad_a = space.floats();
  float* grad_h = grad_h_NF + task.begin * 2 * F;
  space.multiply(layer.grad_y_ND + task.begin * D, rows, D, layer.down_EFD + task.expert * F * D,
                 true, F, grad_a);
  for (int64_t r = 0; r < rows; ++r) {
    const float* gate = layer.h_NF + (task.begin + r) * 2 * F;
    float* grad_gate = grad_h + r * 2 * F;
    kernels.swiglu_gradient(gate, gate + F, grad_a + r * F, F, a_NF + (task.begin + r) * F,
                            grad_gate, grad_gate + F);
  }
  space.multiply(grad_h, rows, 2 * F, layer.gate_up_EDF + task.expert * D * 2 * F, true, D,
                 layer.grad_x_ND + task.begin * D);
}

}  // namespace

void grouped_product(const Crew& crew, const GemmKernels& kernels, Counts counts,
                     const GroupedProduct& product) {
  const int64_t I = product.inputs, O = product.outputs;
  std::vector<Workspace> spaces = workspaces(crew, kernels, O, 0);
  share(crew, row_tasks(counts), spaces, [&](const RowTask& task, Workspace& space) {
    space.multiply(product.x_NI + task.begin * I, task.end - task.begin, I,
                   product.w + task.expert * I * O, product.transposed, O,
                   product.y_NO + task.begin * O);
  });
}

void grouped_outer(const Crew& crew, const GemmKernels& kernels, Counts counts,
                   const GroupedOuter& outer) {
  const int64_t I = outer.inputs, O = outer.outputs;
  std::vector<Workspace> spaces = workspaces(crew, kernels, O, 0);
  share(crew, outer_tasks(counts, {&I, 1}), spaces, [&](const OuterTask& task, Workspace& space) {
    space.outer(task, outer.x_NI, I, outer.y_NO, O, outer.w_EIO + task.expert * I * O);
  });
}

void experts_forward(const Crew& crew, const GemmKernels& kernels, Counts counts,
                     const ExpertsForward& layer) {
  const int64_t D = layer.hidden, F = layer.width;
  std::vector<Workspace> spaces = workspaces(crew, kernels, std::max(D, 2 * F), kRowBlock * F);
  share(crew, row_tasks(counts), spaces, [&](const RowTask& task, Workspace& space) {
    forward_rows(kernels, layer, task, space);
  });
}

void experts_backward(const Crew& crew, const GemmKernels& kernels, Counts counts,
                      const ExpertsBackward& layer) {
  const int64_t D = layer.hidden, F = layer.width;
  const int64_t inputs[] = {D, F};  // of G and of Dn
  const std::vector<RowTask> rows = row_tasks(counts);
  const std::vector<OuterTask> outers = outer_tasks(counts, inputs);
  std::vector<Workspace> spaces = workspaces(crew, kernels, std::max(D, 2 * F), kRowBlock * F);
  const auto N = static_cast<size_t>(std::reduce(counts.begin(), counts.end()));
  const auto a_NF = std::make_unique_for_overwrite<float[]>(N * static_cast<size_t>(F));
  const auto grad_h_NF = std::make_unique_for_overwrite<float[]>(N * static_cast<size_t>(2 * F));
  share(crew, rows, spaces, [&](const RowTask& task, Workspace& space) {
    backward_rows(kernels, layer, task, a_NF.get(), grad_h_NF.get(), space);
  });
  share(crew, outers, spaces, [&](const OuterTask& task, Workspace& space) {
    if (task.which == 0) {
      space.outer(task, layer.x_ND, D, grad_h_NF.get(), 2 * F,
                  layer.grad_gate_up_EDF + task.expert * D * 2 * F);
    } else {
      space.outer(task, a_NF.get(), F, layer.grad_y_ND, D,
                  layer.grad_down_EFD + task.expert * F * D);
    }
  });
}

}  // namespace mobilemoe
