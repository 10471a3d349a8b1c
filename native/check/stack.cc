#include "stack.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <numeric>

#include "attention.h"
#include "elementwise.h"
#include "moe.h"

namespace mobilemoe::check {
namespace {

size_t size_of(int64_t a, int64_t b) { return static_cast<size_t>(a) * static_cast<size_t>(b); }

// One run of a case; the same steps as Session::forward and ModelParts.
class Stack {
 public:
  Stack(const StackCase& stack, const Kernels& kernels, ThreadPool& pool, int64_t chunk,
        int64_t context)
      : case_(stack),
        config_(stack.config),
        kernels_(kernels),
        pool_(pool),
        cache_(config_, context, stack.kv),
        attention_(config_, stack.format, stack.kv, chunk, context, pool.threads()),
        feed_forward_(config_, stack.format, chunk, pool.threads()),
        h_TD_(size_of(chunk, config_.hidden_size)),
        y_TD_(h_TD_.size()),
        ids_(stack.weights.layers.size()) {
    for (auto& ids : ids_) ids.reserve(size_of(context, config_.num_experts_per_tok));
  }

  // x_TD: the tokens from position `first` on, read and written.
  void append(int64_t first, int64_t tokens, float* x_TD) {
    tokens_ = tokens;
    x_TD_ = x_TD;
    attention_.set_positions(first, tokens);
    pool_.run([&](const Team& team) {
      for (size_t i = 0; i < case_.weights.layers.size(); ++i) {
        if (case_.attention) attend(team, i);
        if (case_.feed_forward) feed_forward(team, i);
      }
    });
  }

  std::vector<int32_t> ids() const {
    std::vector<int32_t> flat;
    for (const auto& ids : ids_) flat.insert(flat.end(), ids.begin(), ids.end());
    return flat;
  }

 private:
  const LayerWeights& layer(size_t i) const { return case_.weights.layers[i]; }

  void attend(const Team& team, size_t i) {
    normalise(team, i > 0, layer(i).input_norm_D, [&](int64_t t, int64_t begin, int64_t end) {
      attention_.input().prepare(kernels_, h_TD_.data(), tokens_, t, begin, end);
    });
    std::array<Product, 2> next;
    const bool known = case_.feed_forward && layer(i).swiglu.present();
    if (known) next = feed_forward_.first_products(layer(i), h_TD_.data(), tokens_);
    attention_.forward(team, kernels_, layer(i), static_cast<int64_t>(i), h_TD_.data(), cache_,
                       y_TD_.data(), std::span(next).first(known ? next.size() : 0));
    add_to_stream(team);
    team.barrier();
  }

  void feed_forward(const Team& team, size_t i) {
    normalise(team, i > 0 || case_.attention, layer(i).post_attention_norm_D,
              [&](int64_t t, int64_t begin, int64_t end) {
                feed_forward_.prepare(kernels_, h_TD_.data(), tokens_, t, begin, end);
              });
    std::array<Product, 3> next;
    const bool known = case_.attention && i + 1 < case_.weights.layers.size();
    if (known) next = attention_.first_products(layer(i + 1), h_TD_.data());
    feed_forward_.forward(team, kernels_, layer(i), nullptr, static_cast<int64_t>(i), h_TD_.data(),
                          tokens_, y_TD_.data(), std::span(next).first(known ? next.size() : 0));
    add_to_stream(team);
    if (team.leads() && layer(i).is_moe) keep_ids(ids_[i]);
    team.barrier();
  }

  // h = norm(x), or x, prepared; ends with a barrier.
  template <class Prepare>
  void normalise(const Team& team, bool norm, const std::vector<float>& weight_D,
                 const Prepare& prepare) {
    const int64_t D = config_.hidden_size;
    for_row_pieces(team, tokens_, D / kGroupSize, [&](int64_t t, int64_t begin, int64_t end) {
      const float* x_D = x_TD_ + t * D;
      const float factor = norm ? rms_factor(x_D, config_.rms_norm_eps, D) : 1.0f;
      for (int64_t i = begin * kGroupSize; i < end * kGroupSize; ++i) {
        const float weight = norm ? weight_D[static_cast<size_t>(i)] : 1.0f;
        h_TD_[static_cast<size_t>(t * D + i)] = x_D[i] * factor * weight;
      }
      prepare(t, begin, end);
    });
    team.barrier();
  }

  void add_to_stream(const Team& team) {
    const int64_t D = config_.hidden_size;
    for_row_pieces(team, tokens_, D / kGroupSize, [&](int64_t t, int64_t begin, int64_t end) {
      for (int64_t i = t * D + begin * kGroupSize; i < t * D + end * kGroupSize; ++i) {
        x_TD_[i] += y_TD_[static_cast<size_t>(i)];
      }
    });
  }

  void keep_ids(std::vector<int32_t>& kept) const {
    const std::vector<int32_t>& ids_TK = feed_forward_.topk_ids_TK();
    kept.insert(kept.end(), ids_TK.begin(),
                ids_TK.begin() + tokens_ * config_.num_experts_per_tok);
  }

  const StackCase& case_;
  const Config& config_;
  const Kernels& kernels_;
  ThreadPool& pool_;
  KvCache cache_;
  Attention attention_;
  FeedForward feed_forward_;
  std::vector<float> h_TD_, y_TD_;
  std::vector<std::vector<int32_t>> ids_;  // per layer
  int64_t tokens_ = 0;
  float* x_TD_ = nullptr;
};

}  // namespace

StackResult run_stack(const StackCase& stack, const Kernels& kernels, ThreadPool& pool,
                      std::span<const int64_t> chunks) {
  const int64_t context = std::accumulate(chunks.begin(), chunks.end(), int64_t{0});
  Stack run(stack, kernels, pool, *std::max_element(chunks.begin(), chunks.end()), context);
  StackResult result{stack.x_TD, {}};
  int64_t first = 0;
  for (const int64_t tokens : chunks) {
    run.append(first, tokens, result.x_TD.data() + first * stack.config.hidden_size);
    first += tokens;
  }
  result.topk_ids = run.ids();
  return result;
}

}  // namespace mobilemoe::check
