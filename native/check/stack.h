// Layers of random weights in memory, run by a team of threads as a session runs them.
#pragma once

#include <cstdint>
#include <deque>
#include <span>
#include <vector>

#include "activations.h"
#include "config.h"
#include "inputs.h"
#include "kv_cache.h"
#include "model_weights.h"
#include "thread_pool.h"

namespace mobilemoe::check {

// Which experts the tokens choose.
enum class Routing {
  kFree,
  kSameExperts,  // all tokens the same K, whatever their scores: the bias of those is large
  kNoNumbers,    // every bias is NaN
};

struct RandomLayers {
  std::vector<LayerWeights> layers;
  // What the matrices view.
  std::deque<Int4Data> int4;
  std::deque<Bf16Data> bf16;
};

RandomLayers random_layers(Random& random, const Config& config, WeightFormat format,
                           Routing routing);

// Replaces one number of one layer: a scale, or one of a router, a bias or a norm.
void poison_layers(Random& random, Poison poison, RandomLayers& weights);

// T tokens, D hidden. What runs, and on what.
struct StackCase {
  Config config;
  RandomLayers weights;
  ActivationFormat format = ActivationFormat::kFp32;
  KvFormat kv = KvFormat::kFp32;
  bool attention = true, feed_forward = true;  // the parts that a layer has here
  std::vector<float> x_TD;  // what the first part reads, without a norm
};

struct StackResult {
  std::vector<float> x_TD;         // after the last layer
  std::vector<int32_t> topk_ids;   // [T, K] of one layer after the other
};

// Appends the tokens in chunks of the given sizes, whose sum is T, to an empty cache.
StackResult run_stack(const StackCase& stack, const Kernels& kernels, ThreadPool& pool,
                      std::span<const int64_t> chunks);

}  // namespace mobilemoe::check
