#include "attention.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "attend_floats.h"
#include "elementwise.h"
#include "rope.h"

namespace mobilemoe {
namespace {

size_t size_of(int64_t a, int64_t b) { return static_cast<size_t>(a) * static_cast<size_t>(b); }

float score_factor(const Config& config) {
  return static_cast<float>(1.0 / std::sqrt(static_cast<double>(config.head_dim)));
}

}  // namespace

Attention::Attention(const Config& config, ActivationFormat format, KvFormat kv, int64_t tokens,
                     int64_t context, int threads)
    : config_(config),
      kv_(kv),
      frequencies_(rope_frequencies(config)),
      hidden_(format, tokens, config.hidden_size, 2),
      attended_(format, tokens, config.query_width(), 2),
      cos_(size_of(tokens, config.head_dim / 2)),
      sin_(cos_.size()),
      q_THd_(size_of(hidden_.terms() * tokens, config.query_width())),
      k_TGd_(size_of(hidden_.terms() * tokens, config.kv_width())),
      v_TGd_(k_TGd_.size()),
      attended_THd_(size_of(tokens, config.query_width())),
      out_TD_(size_of(attended_.terms() * tokens, config.hidden_size)) {
  if (kv == KvFormat::kInt8) {
    q_high_GTMd_.resize(size_of(tokens, config.query_width()));
    q_low_GTMd_.resize(q_high_GTMd_.size());
    q_scales_GTM_.resize(size_of(tokens, config.num_attention_heads));
  } else {
    const size_t floats = float_scratch(config, context);
    scratch_.assign(static_cast<size_t>(threads), std::vector<float>(floats));
  }
}

void Attention::set_positions(int64_t first, int64_t tokens) {
  first_ = first;
  tokens_ = tokens;
  rope_table(frequencies_, first, tokens, cos_.data(), sin_.data());
}

void Attention::forward(const Team& team, const Kernels& kernels, const LayerWeights& layer,
                        int64_t cache_layer, const float* h_TD, KvCache& cache, float* y_TD,
                        std::span<const Product> next) {
  const Activations attended = attended_.view(attended_THd_.data(), tokens_);
  const Product output[] = {LinearProduct{&layer.o, attended, out_TD_.data()}};
  multiply(team, kernels, first_products(layer, h_TD));
  team.barrier(prefetch_share(team, output));
  store(team, cache_layer, cache);
  team.barrier();
  if (kv_ == KvFormat::kInt8) {
    attend_int8(team, kernels, cache_layer, cache);
  } else {
    attend_floats(team, kernels, cache_layer, cache);
  }
  team.barrier();
  for_row_pieces(team, tokens_, attended_.blocks(), [&](int64_t t, int64_t begin, int64_t end) {
    attended_.prepare(kernels, attended_THd_.data(), tokens_, t, begin, end);
  });
  team.barrier();
  multiply(team, kernels, output);
  team.barrier(prefetch_share(team, next));
  combine(team, y_TD);
}

// y = the output, both terms together.
void Attention::combine(const Team& team, float* y_TD) const {
  const int64_t D = config_.hidden_size;
  for_row_pieces(team, tokens_, D / kGroupSize, [&](int64_t t, int64_t first, int64_t last) {
    const float* out = out_TD_.data();
    for (int64_t i = t * D + first * kGroupSize; i < t * D + last * kGroupSize; ++i) {
      y_TD[i] = attended_.terms() == 1 ? out[i] : out[i] + out[tokens_ * D + i];
    }
  });
}

std::array<Product, 3> Attention::first_products(const LayerWeights& layer, const float* h_TD) {
  const Activations h = hidden_.view(h_TD, tokens_);
  return {LinearProduct{&layer.q, h, q_THd_.data()}, LinearProduct{&layer.k, h, k_TGd_.data()},
          LinearProduct{&layer.v, h, v_TGd_.data()}};
}

// Adds what the second terms gave for one head.
void Attention::add_terms(std::vector<float>& y, int64_t token, int64_t width,
                          int64_t head) const {
  if (hidden_.terms() == 1) return;
  float* first = y.data() + token * width + head * config_.head_dim;
  const float* second = first + tokens_ * width;
  for (int64_t i = 0; i < config_.head_dim; ++i) first[i] += second[i];
}

// RoPE, then RMS over the head without a learned weight.
void Attention::rotate(float* x_d, int64_t token) const {
  const int64_t d = config_.head_dim;
  apply_rope(x_d, cos_.data() + token * (d / 2), sin_.data() + token * (d / 2), d);
  rms_norm(x_d, nullptr, config_.rms_norm_eps, d, x_d);
}

// Rotates queries and keys, and puts everything where `attend` reads it; a group at a time.
void Attention::store(const Team& team, int64_t cache_layer, KvCache& cache) {
  const int64_t d = config_.head_dim, H = config_.num_attention_heads;
  const int64_t G = config_.num_key_value_heads, M = H / G;
  const Range share = team.share(tokens_ * G);
  for (int64_t i = share.begin; i < share.end; ++i) {
    const int64_t t = i / G, g = i % G;
    for (int64_t head = g * M; head < (g + 1) * M; ++head) {
      add_terms(q_THd_, t, H * d, head);
      store_query(q_THd_.data() + (t * H + head) * d, t, head);
    }
    add_terms(k_TGd_, t, G * d, g);
    add_terms(v_TGd_, t, G * d, g);
    float* k_d = k_TGd_.data() + i * d;
    rotate(k_d, t);
    cache.store(cache_layer, g, first_ + t, k_d, v_TGd_.data() + i * d);
  }
}

// For an int8 cache, as integers of 15 bits in two terms.
void Attention::store_query(float* q_d, int64_t token, int64_t head) {
  rotate(q_d, token);
  if (kv_ != KvFormat::kInt8) return;
  constexpr float kLevels = 16256.0f, kMagic = 12582912.0f;  // 128 * 127; rounds when added
  const int64_t d = config_.head_dim;
  const int64_t M = config_.num_attention_heads / config_.num_key_value_heads;
  const int64_t row = (head / M * tokens_ + token) * M + head % M;
  uint32_t bits = 0;
  for (int64_t i = 0; i < d; ++i) {
    bits = std::max(bits, std::bit_cast<uint32_t>(q_d[i]) & 0x7FFFFFFFu);
  }
  const float largest = std::bit_cast<float>(bits);
  const bool usable = bits < 0x7F800000u && largest >= 1e-30f;
  const float inverse = usable ? kLevels / largest : 0.0f;
  for (int64_t i = 0; i < d; ++i) {
    const float scaled = usable ? q_d[i] * inverse : 0.0f;
    const auto value = static_cast<int32_t>((scaled + kMagic) - kMagic);
    const int32_t high = (value + 64) >> 7;
    q_high_GTMd_[static_cast<size_t>(row * d + i)] = static_cast<int8_t>(high);
    q_low_GTMd_[static_cast<size_t>(row * d + i)] = static_cast<int8_t>(value - 128 * high);
  }
  // A zero row has scale 0, one that is not finite passes that on.
  const float scale = usable ? largest / kLevels : largest * 0.0f;
  q_scales_GTM_[static_cast<size_t>(row)] = scale * score_factor(config_);
}

void Attention::attend_int8(const Team& team, const Kernels& kernels, int64_t cache_layer,
                            const KvCache& cache) {
  const int64_t G = config_.num_key_value_heads, M = config_.num_attention_heads / G;
  const int64_t tiles = (tokens_ * M + kMaxQueryRows - 1) / kMaxQueryRows;
  // The last tokens see the most positions: they come first, so that no thread ends late.
  for (int64_t i = team.take(); i < G * tiles; i = team.take()) {
    const int64_t group = i % G, first = (tiles - 1 - i / G) * kMaxQueryRows;
    const int64_t rows = std::min(kMaxQueryRows, tokens_ * M - first);
    attend_tile(kernels, cache.int8(cache_layer, group), group, first, rows);
  }
}

// Query rows first to first + rows of a group; row t M + m is head m of token t.
void Attention::attend_tile(const Kernels& kernels, const Int8Cache& cache, int64_t group,
                            int64_t first, int64_t rows) {
  const int64_t d = config_.head_dim, H = config_.num_attention_heads;
  const int64_t M = H / config_.num_key_value_heads, row = group * tokens_ * M + first;
  int64_t positions[kMaxQueryRows];
  float* out[kMaxQueryRows];
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t t = (first + r) / M, head = group * M + (first + r) % M;
    positions[r] = first_ + t + 1;
    out[r] = attended_THd_.data() + (t * H + head) * d;
  }
  const Int8Queries queries{q_high_GTMd_.data() + row * d,
                            q_low_GTMd_.data() + row * d,
                            q_scales_GTM_.data() + row,
                            positions,
                            rows,
                            d};
  kernels.attend_int8(cache, queries, out);
}

void Attention::attend_floats(const Team& team, const Kernels& kernels, int64_t cache_layer,
                              const KvCache& cache) {
  const int64_t d = config_.head_dim, H = config_.num_attention_heads;
  const int64_t G = config_.num_key_value_heads, M = H / G;
  float* scratch = scratch_[static_cast<size_t>(team.index())].data();
  for (int64_t i = team.take(); i < tokens_ * G; i = team.take()) {
    const int64_t t = i / G, g = i % G, at = (t * H + g * M) * d;
    const FloatQueries queries{q_THd_.data() + at, M, d, first_ + t + 1, score_factor(config_)};
    if (kv_ == KvFormat::kFp32) {
      attend_fp32(kernels, queries, cache.fp32_keys(cache_layer, g),
                  cache.fp32_values(cache_layer, g), scratch, attended_THd_.data() + at);
    } else {
      attend_fp16(kernels, queries, cache.fp16_keys(cache_layer, g),
                  cache.fp16_values(cache_layer, g), scratch, attended_THd_.data() + at);
    }
  }
}

}  // namespace mobilemoe
