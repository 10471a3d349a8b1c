#include "attention.h"

#include <algorithm>
#include <cmath>
#include <new>
#include <string>

#include "elementwise.h"
#include "errors.h"
#include "rope.h"

namespace mobilemoe {
namespace {

size_t size_of(int64_t a, int64_t b) { return static_cast<size_t>(a) * static_cast<size_t>(b); }

}  // namespace

KvCache::KvCache(const Config& config, int64_t context)
    : heads_(config.num_key_value_heads), head_size_(context * config.head_dim) {
  const double floats = static_cast<double>(config.num_hidden_layers) *
                        static_cast<double>(heads_) * static_cast<double>(head_size_);
  if (floats > 1e15) {
    throw InvalidArgument("context is " + std::to_string(context) +
                          "; allowed: one whose KV cache fits in memory");
  }
  const size_t size = size_of(config.num_hidden_layers * heads_, head_size_);
  keys_ = zeros(size);
  values_ = zeros(size);
}

KvCache::Buffer KvCache::zeros(size_t floats) {
  Buffer buffer(static_cast<float*>(std::calloc(floats, sizeof(float))));
  if (!buffer) throw std::bad_alloc();
  return buffer;
}

Attention::Attention(const Config& config, ActivationFormat format, int64_t tokens,
                     int64_t context, int threads)
    : config_(config),
      frequencies_(rope_frequencies(config)),
      hidden_(format, tokens, config.hidden_size, 2),
      attended_(format, tokens, config.query_width()),
      cos_(size_of(tokens, config.head_dim / 2)),
      sin_(cos_.size()),
      q_THd_(size_of(hidden_.terms() * tokens, config.query_width())),
      k_TGd_(size_of(hidden_.terms() * tokens, config.kv_width())),
      v_TGd_(k_TGd_.size()),
      attended_THd_(size_of(tokens, config.query_width())),
      scores_N_(static_cast<size_t>(threads), std::vector<float>(static_cast<size_t>(context))) {}

void Attention::set_positions(int64_t first, int64_t tokens) {
  first_ = first;
  tokens_ = tokens;
  rope_table(frequencies_, first, tokens, cos_.data(), sin_.data());
}

void Attention::forward(ThreadPool& pool, const Kernels& kernels, const LayerWeights& layer,
                        int64_t cache_layer, const float* h_TD, KvCache& cache, float* y_TD) {
  project(pool, kernels, layer, h_TD);
  store(pool, cache_layer, cache);
  attend(pool, kernels, cache_layer, cache);
  const Activations attended =
      attended_.prepare(pool, kernels, attended_THd_.data(), tokens_, config_.query_width());
  const Product output[] = {LinearProduct{&layer.o, &attended, y_TD}};
  run_products(pool, kernels, output);
}

void Attention::project(ThreadPool& pool, const Kernels& kernels, const LayerWeights& layer,
                        const float* h_TD) {
  const Activations h = hidden_.prepare(pool, kernels, h_TD, tokens_, config_.hidden_size);
  const Product products[] = {LinearProduct{&layer.q, &h, q_THd_.data()},
                              LinearProduct{&layer.k, &h, k_TGd_.data()},
                              LinearProduct{&layer.v, &h, v_TGd_.data()}};
  run_products(pool, kernels, products);
  if (hidden_.terms() == 1) return;
  add_terms(pool, q_THd_, config_.query_width());
  add_terms(pool, k_TGd_, config_.kv_width());
  add_terms(pool, v_TGd_, config_.kv_width());
}

// y[t] += y[T + t]: the outputs of the second terms.
void Attention::add_terms(ThreadPool& pool, std::vector<float>& y, int64_t width) const {
  pool.for_tokens(tokens_, [&](int64_t begin, int64_t end, int) {
    const float* second = y.data() + tokens_ * width;
    for (int64_t i = begin * width; i < end * width; ++i) y[static_cast<size_t>(i)] += second[i];
  });
}

// RoPE, then RMS over the head without a learned weight.
void Attention::rotate(float* x_d, int64_t token) const {
  const int64_t d = config_.head_dim;
  apply_rope(x_d, cos_.data() + token * (d / 2), sin_.data() + token * (d / 2), d);
  rms_norm(x_d, nullptr, config_.rms_norm_eps, d, x_d);
}

void Attention::store(ThreadPool& pool, int64_t cache_layer, KvCache& cache) {
  const int64_t d = config_.head_dim, H = config_.num_attention_heads;
  const int64_t G = config_.num_key_value_heads;
  pool.for_tokens(tokens_, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t h = 0; h < H; ++h) rotate(q_THd_.data() + (t * H + h) * d, t);
      for (int64_t g = 0; g < G; ++g) {
        float* k_d = k_TGd_.data() + (t * G + g) * d;
        const float* v_d = v_TGd_.data() + (t * G + g) * d;
        rotate(k_d, t);
        std::copy(k_d, k_d + d, cache.keys(cache_layer, g) + (first_ + t) * d);
        std::copy(v_d, v_d + d, cache.values(cache_layer, g) + (first_ + t) * d);
      }
    }
  });
}

void Attention::attend(ThreadPool& pool, const Kernels& kernels, int64_t cache_layer,
                       KvCache& cache) {
  const int64_t d = config_.head_dim, H = config_.num_attention_heads;
  const int64_t heads_per_kv = H / config_.num_key_value_heads;
  const auto factor = static_cast<float>(1.0 / std::sqrt(static_cast<double>(d)));
  pool.parallel_for(tokens_ * H, [&](int64_t begin, int64_t end, int thread) {
    float* scores_N = scores_N_[static_cast<size_t>(thread)].data();
    for (int64_t i = begin; i < end; ++i) {
      const int64_t positions = first_ + i / H + 1, g = i % H / heads_per_kv;
      kernels.attention_scores(q_THd_.data() + i * d, cache.keys(cache_layer, g), positions, d,
                               factor, scores_N);
      softmax(scores_N, positions);
      kernels.attention_values(scores_N, cache.values(cache_layer, g), positions, d,
                               attended_THd_.data() + i * d);
    }
  });
}

}  // namespace mobilemoe
