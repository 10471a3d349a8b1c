#include "train_attention.h"

#include <algorithm>
#include <atomic>
#include <vector>

#include "train_blocks.h"

namespace mobilemoe {
namespace {

// One (b, h) of the arrays.
struct Head {
  const float *q, *k, *v;
  int64_t o;       // where its first output lies
  int64_t sums;    // and its first sum
};

Head head_of(const Attention& a, int64_t b, int64_t h) {
  const int64_t row = b * a.heads + h, group = b * a.groups + h / (a.heads / a.groups);
  const int64_t size = a.tokens * a.d;
  return {a.q_BHTd + row * size, a.k_BGTd + group * size, a.v_BGTd + group * size,
          b * size * a.heads + h * a.d, row * a.tokens};
}

// Scores of the block's queries with every key that one of them sees.
void score(const Blocks& blocks, const Block& block, const float* q, const float* packed_k,
           float* scores) {
  blocks.multiply(blocks.rows(q + block.begin * blocks.d(), blocks.d(), block.count()),
                  {packed_k, blocks.d(), block.keys}, scores, blocks.stride(), false);
}

void attend_block(const GemmKernels& kernels, const Attention& a, Blocks& blocks,
                  const Block& block, const Head& head, const float* packed_k,
                  const float* packed_v, float* o_BTHd, float* sums_BHT) {
  float* scores = blocks.scores();
  score(blocks, block, head.q, packed_k, scores);
  for (int64_t i = block.begin; i < block.end; ++i) {
    float* row = scores + (i - block.begin) * blocks.stride();
    sums_BHT[head.sums + i] = kernels.softmax(row, i + 1, a.scale);
    std::fill(row + i + 1, row + block.keys, 0.0f);
  }
  const int64_t stride = a.heads * a.d;
  blocks.sum_over_keys(scores, block, packed_v, o_BTHd + head.o + block.begin * stride, stride);
}

// What a task of the backward pass, one (b, g), reads and adds to.
struct GroupTask {
  PackedKeys k_columns, k_rows, v_columns;
  float *grad_k, *grad_v;
};

// Turns scores into probabilities and the gradients of probabilities into those of scores.
void differentiate(const GemmKernels& kernels, float scale, const Blocks& blocks,
                   const Block& block, const float* sums, float* p, float* grad) {
  for (int64_t i = block.begin; i < block.end; ++i) {
    const int64_t at = (i - block.begin) * blocks.stride();
    kernels.softmax_gradient(p + at, grad + at, i + 1, scale, sums[i]);
    std::fill(p + at + i + 1, p + at + block.keys, 0.0f);
    std::fill(grad + at + i + 1, grad + at + block.keys, 0.0f);
  }
}

void block_gradient(const GemmKernels& kernels, const Attention& a, const AttentionGradient& to,
                    Blocks& blocks, const Block& block, const Head& head, const GroupTask& task) {
  const int64_t stride = a.heads * a.d, first = block.begin * a.d;
  const float* grad_o = to.grad_o_BTHd + head.o + block.begin * stride;
  float *p = blocks.scores(), *grad = blocks.gradients();
  score(blocks, block, head.q, task.k_columns.values(), p);
  blocks.multiply(blocks.rows(grad_o, stride, block.count()),
                  {task.v_columns.values(), a.d, block.keys}, grad, blocks.stride(), false);
  differentiate(kernels, a.scale, blocks, block, to.sums_BHT + head.sums, p, grad);
  float* grad_q = to.grad_q_BHTd + (head.q - a.q_BHTd) + first;
  blocks.sum_over_keys(grad, block, task.k_rows.values(), grad_q, a.d);
  blocks.add_over_queries(grad, block, head.q + first, a.d, task.grad_k);
  blocks.add_over_queries(p, block, grad_o, stride, task.grad_v);
}

void group_gradient(const GemmKernels& kernels, const Attention& a, const AttentionGradient& to,
                    Blocks& blocks, GroupTask& task, int64_t index) {
  const int64_t b = index / a.groups, g = index % a.groups, size = a.tokens * a.d;
  const int64_t repeat = a.heads / a.groups;
  task.k_columns.pack_columns(a.k_BGTd + index * size);
  task.k_rows.pack_rows(a.k_BGTd + index * size);
  task.v_columns.pack_columns(a.v_BGTd + index * size);
  task.grad_k = to.grad_k_BGTd + index * size;
  task.grad_v = to.grad_v_BGTd + index * size;
  std::fill(task.grad_k, task.grad_k + size, 0.0f);
  std::fill(task.grad_v, task.grad_v + size, 0.0f);
  for (int64_t h = g * repeat; h < (g + 1) * repeat; ++h) {
    const Head head = head_of(a, b, h);
    for (int64_t i = 0; i < blocks.count(); ++i) {
      block_gradient(kernels, a, to, blocks, blocks.at(i), head, task);
    }
  }
}

template <class Make>
auto per_thread(const Crew& crew, const Make& make) {
  std::vector<decltype(make())> made;
  for (int thread = 0; thread < crew.threads(); ++thread) made.push_back(make());
  return made;
}

}  // namespace

void attend(const Crew& crew, const GemmKernels& kernels, const Attention& a, float* o_BTHd,
            float* sums_BHT) {
  const int64_t groups = a.batch * a.groups, size = a.tokens * a.d, repeat = a.heads / a.groups;
  auto blocks = per_thread(crew, [&] { return Blocks(kernels, a.tokens, a.d); });
  std::vector<PackedKeys> keys, values;
  for (int64_t g = 0; g < groups; ++g) {
    keys.emplace_back(kernels, a.tokens, a.d);
    values.emplace_back(kernels, a.tokens, a.d);
  }
  crew.run([&](const Part& thread) {
    const Range part = thread.share(groups);
    for (int64_t g = part.begin; g < part.end; ++g) {
      keys[static_cast<size_t>(g)].pack_columns(a.k_BGTd + g * size);
      values[static_cast<size_t>(g)].pack_rows(a.v_BGTd + g * size);
    }
  });
  const int64_t heads = a.batch * a.heads, tasks = heads * blocks[0].count();
  std::atomic<int64_t> next{0};
  crew.run([&](const Part& thread) {
    Blocks& own = blocks[static_cast<size_t>(thread.index)];
    for (int64_t i = next++; i < tasks; i = next++) {  // the block that sees most comes first
      const int64_t head = i % heads;
      const auto group = static_cast<size_t>(head / repeat);
      attend_block(kernels, a, own, own.at(own.count() - 1 - i / heads),
                   head_of(a, head / a.heads, head % a.heads), keys[group].values(),
                   values[group].values(), o_BTHd, sums_BHT);
    }
  });
}

void attend_gradient(const Crew& crew, const GemmKernels& kernels, const Attention& a,
                     const AttentionGradient& gradient) {
  auto blocks = per_thread(crew, [&] { return Blocks(kernels, a.tokens, a.d); });
  auto tasks = per_thread(crew, [&] {
    const PackedKeys keys(kernels, a.tokens, a.d);
    return GroupTask{keys, keys, keys, nullptr, nullptr};
  });
  std::atomic<int64_t> next{0};
  crew.run([&](const Part& thread) {
    const auto own = static_cast<size_t>(thread.index);
    for (int64_t i = next++; i < a.batch * a.groups; i = next++) {
      group_gradient(kernels, a, gradient, blocks[own], tasks[own], i);
    }
  });
}

}  // namespace mobilemoe
