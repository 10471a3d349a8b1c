#include "layer_probe.h"

#include <string>
#include <utility>

#include "errors.h"

namespace mobilemoe {
namespace {

int64_t checked_tokens(const Config& config, int64_t tokens) {
  if (tokens < 1 || tokens > config.max_position_embeddings) {
    throw InvalidArgument("tokens is " + std::to_string(tokens) + "; allowed: 1 to " +
                          std::to_string(config.max_position_embeddings) +
                          " (max_position_embeddings)");
  }
  return tokens;
}

Config with_one_layer(Config config) {
  config.num_hidden_layers = 1;
  return config;
}

std::vector<float> rows_of_floats(int64_t rows, int64_t width) {
  return std::vector<float>(static_cast<size_t>(rows) * static_cast<size_t>(width));
}

}  // namespace

LayerProbe::LayerProbe(std::shared_ptr<const Model> model, int64_t tokens,
                       ActivationFormat format, KvFormat kv)
    : model_(std::move(model)),
      tokens_(checked_tokens(model_->config(), tokens)),
      cache_(with_one_layer(model_->config()), tokens, kv),
      parts_(*model_, format, kv, tokens, tokens) {}

std::vector<float> LayerProbe::attention(int64_t layer, const Rows& rows) {
  check_layer(layer);
  check_rows(rows);
  const auto guard = model_->lock();
  std::vector<float> y_TD = rows_of_floats(rows.tokens, rows.width);
  parts_.set_positions(0, rows.tokens);
  model_->pool().run([&](const Team& team) {
    parts_.attention(team, layer, rows.x_TD, cache_, 0, y_TD.data());
  });
  model_->check_intact();
  return y_TD;
}

LayerProbe::FeedForwardOutput LayerProbe::feed_forward(int64_t layer, const Rows& rows) {
  check_layer(layer);
  check_rows(rows);
  const auto guard = model_->lock();
  FeedForwardOutput out{rows_of_floats(rows.tokens, rows.width), {}, {}};
  model_->pool().run([&](const Team& team) {
    parts_.feed_forward(team, layer, rows.x_TD, rows.tokens, out.y_TD.data());
  });
  model_->check_intact();
  if (model_->config().is_moe_layer(layer)) {
    const float* logits_TE = parts_.routing().router_logits_TE();
    out.router_logits_TE.assign(logits_TE,
                                logits_TE + rows.tokens * model_->config().num_local_experts);
    const auto& ids_TK = parts_.routing().topk_ids_TK();
    out.topk_ids_TK.assign(
        ids_TK.begin(),
        ids_TK.begin() + rows.tokens * model_->config().num_experts_per_tok);
  }
  return out;
}

std::vector<float> LayerProbe::head(const Rows& rows) {
  check_rows(rows);
  const auto guard = model_->lock();
  std::vector<float> logits_TV = rows_of_floats(rows.tokens, model_->config().vocab_size);
  model_->pool().run(
      [&](const Team& team) { parts_.head(team, rows.x_TD, rows.tokens, logits_TV.data()); });
  model_->check_intact();
  return logits_TV;
}

void LayerProbe::check_layer(int64_t layer) const {
  const int64_t layers = model_->config().num_hidden_layers;
  if (layer < 0 || layer >= layers) {
    throw InvalidArgument("layer is " + std::to_string(layer) + "; allowed: 0 to " +
                          std::to_string(layers - 1));
  }
}

void LayerProbe::check_rows(const Rows& rows) const {
  const int64_t D = model_->config().hidden_size;
  if (rows.tokens >= 1 && rows.tokens <= tokens_ && rows.width == D) return;
  throw InvalidArgument("x_TD has the shape [" + std::to_string(rows.tokens) + ", " +
                        std::to_string(rows.width) + "]; allowed: [1 to " +
                        std::to_string(tokens_) + ", " + std::to_string(D) + "]");
}

}  // namespace mobilemoe
