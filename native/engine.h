// A model (immutable) and a session (one growing context); mirrors
// mobilemoe.model.transformer.MobileMoE.forward with a KV cache.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "config.h"
#include "kernels.h"
#include "kv_cache.h"
#include "mapped_file.h"
#include "model_parts.h"
#include "model_weights.h"
#include "residency.h"
#include "thread_pool.h"

namespace mobilemoe {

// Weights and threads, shared by any number of sessions; one session computes at a time.
class Model {
 public:
  // `paths`: the one file of the model, or all of its shards. Throws ModelFileError for a file,
  // InvalidArgument for the rest.
  Model(const std::vector<std::string>& paths, const Config& config, int threads,
        const std::string& kernel, WeightFormat weight_format);

  // Held around every computation. Throws InvalidArgument in a process forked after the model
  // was loaded with more than one thread, and inside a poll of a session of this model; throws
  // as `check_intact`.
  std::unique_lock<std::mutex> lock() const;
  // Whatever was computed since `lock` counts only after this. Throws ModelFileError once a file
  // has been truncated or changed, or could not be read.
  void check_intact() const;

  // From now on keeps `budget_bytes` of the routed experts in memory, `pins` always among them.
  // Throws InvalidArgument as ExpertResidency's constructor.
  void limit_experts(uint64_t budget_bytes, std::span<const ExpertResidency::Pin> pins);
  // Null without a limit. Whoever uses it holds the lock.
  ExpertResidency* residency() const { return residency_.get(); }

  const Config& config() const { return config_; }
  const ModelWeights& weights() const { return weights_; }
  const Kernels& kernels() const { return kernels_; }
  ThreadPool& pool() const { return *pool_; }

 private:
  Config config_;
  const Kernels& kernels_;
  std::vector<std::unique_ptr<MappedFile>> files_;
  ModelWeights weights_;
  std::unique_ptr<ExpertResidency> residency_;
  std::unique_ptr<ThreadPool> pool_;
};

// T tokens of a call, V vocabulary, K top-k, L layers that route.
class Session {
 public:
  // Throws InvalidArgument for a context outside 1 to max_position_embeddings, for int8
  // activations with BF16 weights, and for a cache that does not take the model's head dim.
  Session(std::shared_ptr<const Model> model, int64_t context, ActivationFormat format,
          KvFormat kv);

  // Called now and then during a long append; may throw to end it, and must not call sessions
  // of the same model (they throw InvalidArgument).
  using Poll = std::function<void()>;

  // Appends T >= 1 ids and fills logits [V] of the last one. Position and routing stay when
  // it throws: InvalidArgument for an id outside the vocabulary, no ids or too many for the
  // context, what `poll` throws, or ModelFileError for a file that was damaged before the call
  // or in it. Every member that computes takes the model's lock.
  void append(std::span<const int32_t> ids, std::vector<float>& logits_V, const Poll& poll);
  // The same, with logits [T, V] of all.
  void append_all(std::span<const int32_t> ids, std::vector<float>& logits_TV, const Poll& poll);
  // Forgets every token from `position` on; throws InvalidArgument beyond the current one.
  void rewind(int64_t position);

  int64_t position() const { return position_; }
  int64_t context() const { return context_; }
  const Model& model() const { return *model_; }
  // The experts chosen in the last append, [L, T, K] flattened, best first.
  std::vector<int32_t> routing() const;

 private:
  void check_ids(std::span<const int32_t> ids) const;
  void append_checked(std::span<const int32_t> ids, std::vector<float>& logits, bool all,
                      const Poll& poll);
  void append_chunks(std::span<const int32_t> ids, float* logits, bool all, const Poll& poll);
  void forward(const Team& team, std::span<const int32_t> ids);
  void embed_tokens(const Team& team, std::span<const int32_t> ids);
  void add_to_stream(const Team& team, int64_t tokens);
  void keep_routing(int64_t layer, int64_t tokens);

  std::shared_ptr<const Model> model_;
  int64_t context_;
  int64_t chunk_;  // tokens computed at a time
  std::atomic<int64_t> position_ = 0;  // read without the lock
  KvCache cache_;
  ModelParts parts_;
  std::vector<float> x_TD_, y_TD_;  // the residual stream, and what a part adds to it
  std::vector<std::vector<int32_t>> routing_;  // per layer, [T, K]; empty where none routes
};

}  // namespace mobilemoe
