#include "engine.h"

#include <algorithm>
#include <system_error>
#include <utility>

#include "errors.h"

namespace mobilemoe {
namespace {

constexpr int64_t kChunk = 512;  // bounds the scratch memory; never shows in the bits
constexpr int kMaxThreads = 1024;

// The model whose lock this thread holds while `poll` runs code that is not ours.
thread_local const Model* polled_model = nullptr;

void call_poll(const Model& model, const Session::Poll& poll) {
  struct Restore {
    const Model* before;
    ~Restore() { polled_model = before; }
  };
  const Restore restore{std::exchange(polled_model, &model)};
  poll();
}

int64_t checked_context(const Config& config, int64_t context) {
  if (context < 1 || context > config.max_position_embeddings) {
    throw InvalidArgument("context is " + std::to_string(context) + "; allowed: 1 to " +
                          std::to_string(config.max_position_embeddings) +
                          " (max_position_embeddings)");
  }
  return context;
}

std::unique_ptr<ThreadPool> start_pool(int threads) {
  if (threads < 1 || threads > kMaxThreads) {
    throw InvalidArgument("threads is " + std::to_string(threads) + "; allowed: 1 to " +
                          std::to_string(kMaxThreads));
  }
  try {
    return std::make_unique<ThreadPool>(threads);
  } catch (const std::system_error& error) {
    throw InvalidArgument("threads is " + std::to_string(threads) +
                          "; this system starts no more of them: " + error.code().message() +
                          "\nhint: choose fewer threads");
  }
}

const Config& checked_config(const Config& config) {
  check_config(config);
  return config;
}

std::vector<std::unique_ptr<MappedFile>> open_files(const std::vector<std::string>& paths) {
  if (paths.empty()) throw InvalidArgument("paths is empty; allowed: at least one model file");
  std::vector<std::unique_ptr<MappedFile>> files;
  for (const std::string& path : paths) files.push_back(std::make_unique<MappedFile>(path));
  return files;
}

ModelWeights read_files(const std::vector<std::unique_ptr<MappedFile>>& files,
                        const Config& config, WeightFormat format) {
  std::vector<ModelFile*> all;
  for (const std::unique_ptr<MappedFile>& file : files) all.push_back(file.get());
  return read_model_weights(all, config, format);
}

// Per layer, with capacity for the choices of `tokens` tokens where it routes.
std::vector<std::vector<int32_t>> room_for_routing(const Config& config, size_t tokens) {
  std::vector<std::vector<int32_t>> routing(static_cast<size_t>(config.num_hidden_layers));
  for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
    if (!config.is_moe_layer(i)) continue;
    const auto K = static_cast<size_t>(config.num_experts_per_tok);
    routing[static_cast<size_t>(i)].reserve(tokens * K);
  }
  return routing;
}

// The embedding of one token as floats.
void embed(const Int4Matrix& embedding_VD, int32_t id, float* x_D) {
  const uint8_t* bytes = row_bytes(embedding_VD, id);
  const uint8_t* scales = row_scales(embedding_VD, id);
  for (int64_t i = 0; i < embedding_VD.columns / 2; ++i) {
    const float scale = half_at(scales, 2 * i / kGroupSize);
    x_D[2 * i] = static_cast<float>(nibble_value(bytes[i] & 15)) * scale;
    x_D[2 * i + 1] = static_cast<float>(nibble_value(bytes[i] >> 4)) * scale;
  }
}

void embed(const Bf16Matrix& embedding_VD, int32_t id, float* x_D) {
  const uint8_t* bits = row_bits(embedding_VD, id);
  for (int64_t i = 0; i < embedding_VD.columns; ++i) x_D[i] = bfloat16_at(bits, i);
}

}  // namespace

Model::Model(const std::vector<std::string>& paths, const Config& config, int threads,
             const std::string& kernel, WeightFormat weight_format)
    : config_(checked_config(config)),
      kernels_(choose_kernels(kernel)),
      files_(open_files(paths)),
      weights_(read_files(files_, config_, weight_format)),
      pool_(start_pool(threads)) {}

void Model::limit_experts(uint64_t budget_bytes, std::span<const ExpertResidency::Pin> pins) {
  const auto guard = lock();
  std::vector<FileView> views;
  for (const auto& file : files_) views.push_back(file->view());
  residency_ = std::make_unique<ExpertResidency>(weights_, std::move(views), budget_bytes, pins);
}

void Model::check_intact() const {
  arm_fault_guard();
  for (const std::unique_ptr<MappedFile>& file : files_) file->check_intact();
}

// In a forked process the workers are missing, and whoever held the mutex may be missing too.
std::unique_lock<std::mutex> Model::lock() const {
  if (!pool_->usable()) {
    throw InvalidArgument("this process was forked after the model was loaded; threads is " +
                          std::to_string(pool_->threads()) +
                          "; allowed after a fork: 1\n"
                          "hint: load the model in the forked process, or with threads=1");
  }
  if (polled_model == this) {
    throw InvalidArgument("the model is called while it computes in the same thread; allowed: "
                          "one call at a time\n"
                          "hint: let a signal handler set a flag instead of calling the model");
  }
  std::unique_lock guard(pool_->mutex());
  check_intact();
  return guard;
}

Session::Session(std::shared_ptr<const Model> model, int64_t context, ActivationFormat format,
                 KvFormat kv)
    : model_(std::move(model)),
      context_(checked_context(model_->config(), context)),
      chunk_(std::min(kChunk, context)),
      cache_(model_->config(), context, kv),
      parts_(*model_, format, kv, chunk_, context),
      x_TD_(static_cast<size_t>(chunk_ * model_->config().hidden_size)),
      y_TD_(x_TD_.size()) {}

void Session::append(std::span<const int32_t> ids, std::vector<float>& logits_V,
                     const Poll& poll) {
  append_checked(ids, logits_V, false, poll);
}

void Session::append_all(std::span<const int32_t> ids, std::vector<float>& logits_TV,
                         const Poll& poll) {
  append_checked(ids, logits_TV, true, poll);
}

void Session::append_checked(std::span<const int32_t> ids, std::vector<float>& logits, bool all,
                             const Poll& poll) {
  const auto guard = model_->lock();
  check_ids(ids);
  const size_t rows = all ? ids.size() : 1;
  logits.resize(rows * static_cast<size_t>(model_->config().vocab_size));
  const int64_t before = position_;
  auto routing_before = std::exchange(routing_, room_for_routing(model_->config(), ids.size()));
  try {
    append_chunks(ids, logits.data(), all, poll);
    model_->check_intact();  // zeros may have stood in for weights
  } catch (...) {
    position_ = before;  // what lies behind it in the cache is never read
    routing_ = std::move(routing_before);
    throw;
  }
}

void Session::append_chunks(std::span<const int32_t> ids, float* logits, bool all,
                            const Poll& poll) {
  const int64_t D = model_->config().hidden_size, V = model_->config().vocab_size;
  for (size_t first = 0; first < ids.size(); first += static_cast<size_t>(chunk_)) {
    const size_t count = std::min(static_cast<size_t>(chunk_), ids.size() - first);
    const auto tokens = static_cast<int64_t>(count);
    if (first > 0) {
      call_poll(*model_, poll);
      model_->check_intact();
    }
    parts_.set_positions(position_, tokens);
    model_->pool().run([&](const Team& team) {
      forward(team, ids.subspan(first, count));
      if (all) {
        parts_.head(team, x_TD_.data(), tokens, logits + static_cast<int64_t>(first) * V);
      } else if (first + count == ids.size()) {
        parts_.head(team, x_TD_.data() + (tokens - 1) * D, 1, logits);
      }
    });
    position_ += tokens;
  }
}

void Session::check_ids(std::span<const int32_t> ids) const {
  const int64_t free = context_ - position_, vocabulary = model_->config().vocab_size;
  if (ids.empty()) throw InvalidArgument("ids is empty; allowed: at least one token id");
  if (static_cast<int64_t>(ids.size()) > free) {
    throw InvalidArgument("ids has " + std::to_string(ids.size()) + " tokens; allowed: at most " +
                          std::to_string(free) + " (" + std::to_string(position_) + " of " +
                          std::to_string(context_) + " positions of the context are taken)");
  }
  for (const int32_t id : ids) {
    if (id < 0 || id >= vocabulary) {
      throw InvalidArgument("token id is " + std::to_string(id) + "; allowed: 0 to " +
                            std::to_string(vocabulary - 1));
    }
  }
}

// Leaves the residual stream after all layers in x_TD_, complete at its end.
void Session::forward(const Team& team, std::span<const int32_t> ids) {
  const auto tokens = static_cast<int64_t>(ids.size());
  embed_tokens(team, ids);
  team.barrier();
  for (int64_t i = 0; i < model_->config().num_hidden_layers; ++i) {
    parts_.attention(team, i, x_TD_.data(), cache_, i, y_TD_.data());
    add_to_stream(team, tokens);
    team.barrier();
    parts_.feed_forward(team, i, x_TD_.data(), tokens, y_TD_.data());
    add_to_stream(team, tokens);
    if (team.leads()) keep_routing(i, tokens);
    team.barrier();
  }
}

void Session::embed_tokens(const Team& team, std::span<const int32_t> ids) {
  const int64_t D = model_->config().hidden_size;
  const Range share = team.share(static_cast<int64_t>(ids.size()));
  for (int64_t t = share.begin; t < share.end; ++t) {
    std::visit([&](const auto& w) { embed(w, ids[static_cast<size_t>(t)], x_TD_.data() + t * D); },
               model_->weights().embedding_VD);
  }
}

// x += y, of this thread's pieces.
void Session::add_to_stream(const Team& team, int64_t tokens) {
  const int64_t D = model_->config().hidden_size;
  for_row_pieces(team, tokens, D / kGroupSize, [&](int64_t t, int64_t begin, int64_t end) {
    for (int64_t i = t * D + begin * kGroupSize; i < t * D + end * kGroupSize; ++i) {
      x_TD_[static_cast<size_t>(i)] += y_TD_[static_cast<size_t>(i)];
    }
  });
}

// The room for it was made before the computation, which must not throw.
void Session::keep_routing(int64_t layer, int64_t tokens) {
  if (!model_->config().is_moe_layer(layer)) return;
  const std::vector<int32_t>& ids_TK = parts_.routing().topk_ids_TK();
  std::vector<int32_t>& kept = routing_[static_cast<size_t>(layer)];
  kept.insert(kept.end(), ids_TK.begin(),
              ids_TK.begin() + tokens * model_->config().num_experts_per_tok);
}

void Session::rewind(int64_t position) {
  const auto guard = model_->lock();
  if (position < 0 || position > position_) {
    throw InvalidArgument("position is " + std::to_string(position) + "; allowed: 0 to " +
                          std::to_string(position_));
  }
  position_ = position;
}

std::vector<int32_t> Session::routing() const {
  const auto guard = model_->lock();
  std::vector<int32_t> flat;
  for (const std::vector<int32_t>& layer : routing_) {
    flat.insert(flat.end(), layer.begin(), layer.end());
  }
  return flat;
}

}  // namespace mobilemoe
