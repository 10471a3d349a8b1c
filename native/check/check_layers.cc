// Feed-forward, attention and both in turn, by teams of 1 to 7 threads: the same bits from all,
// and from other chunks of the same tokens.
#include <algorithm>
#include <deque>
#include <numeric>
#include <set>
#include <string>

#include "checks.h"
#include "compare.h"
#include "stack.h"

namespace mobilemoe::check {
namespace {

constexpr int64_t kTokens[] = {1, 2, 4, 5, 9, 61, 121};  // 4 | 5 and 60 | 61 divide loops of moe.cc
constexpr int kThreads[] = {2, 3, 4, 7};

// Pools of every size, made once: what a thread left in the last case must not matter.
struct Pools {
  std::deque<ThreadPool> all;
  ThreadPool alone{1};

  Pools() {
    for (const int threads : kThreads) all.emplace_back(threads);
  }
};

struct Formats {
  WeightFormat weights;
  ActivationFormat activations;
  const char* name;
};
constexpr Formats kFormats[] = {
    {WeightFormat::kInt4, ActivationFormat::kInt8, "int8"},
    {WeightFormat::kInt4, ActivationFormat::kFp32, "fp32"},
    {WeightFormat::kBf16, ActivationFormat::kFp32, "bf16"},
};
constexpr KvFormat kCaches[] = {KvFormat::kInt8, KvFormat::kFp16, KvFormat::kFp32};
constexpr Routing kRoutings[] = {Routing::kFree, Routing::kSameExperts, Routing::kNoNumbers};

enum class Kind { kMoe, kMoeWithoutShared, kDense, kInterleaved };
constexpr Kind kKinds[] = {Kind::kMoe, Kind::kMoeWithoutShared, Kind::kDense, Kind::kInterleaved};

struct Plan {
  std::vector<int64_t> chunks;
  Kind kind = Kind::kMoe;
  Formats formats = kFormats[0];
  Routing routing = Routing::kFree;
  Poison poison = Poison::kNone;
  KvFormat kv = KvFormat::kFp32;
  bool attention = true, feed_forward = true;
};

int64_t sum(const std::vector<int64_t>& chunks) {
  return std::accumulate(chunks.begin(), chunks.end(), int64_t{0});
}

int64_t random_width(Random& random, size_t groups) {
  return kGroupSize * static_cast<int64_t>(1 + random.below(groups));
}

// Few experts, so that some get many tokens, and one token leaves some without any.
void set_feed_forward(Random& random, Kind kind, size_t groups, Config& config) {
  config.intermediate_size = random_width(random, groups);
  config.intermediate_size_mlp = random_width(random, groups);
  if (kind == Kind::kMoeWithoutShared) config.intermediate_size_mlp = 0;
  if (kind == Kind::kInterleaved) config.interleave_moe_layer_step = 2;
  if (kind == Kind::kDense) return;
  config.num_local_experts = static_cast<int64_t>(1 + random.below(9));
  const auto most = static_cast<size_t>(std::min<int64_t>(config.num_local_experts, 3));
  config.num_experts_per_tok = static_cast<int64_t>(1 + random.below(most));
  config.routed_scaling_factor = 1.5;
}

void set_attention(Random& random, size_t groups, Config& config) {
  do {
    config.head_dim = 16 * static_cast<int64_t>(1 + random.below(4));
    config.num_key_value_heads = static_cast<int64_t>(1 + random.below(groups / 2));
    const auto ratio = static_cast<int64_t>(1 + random.below(3));
    config.num_attention_heads = config.num_key_value_heads * ratio;
  } while (config.query_width() % kGroupSize != 0);
  config.rope_theta = 10000.0;
}

StackCase make_case(Random& random, const Plan& plan) {
  const int64_t tokens = sum(plan.chunks);
  const size_t groups = tokens > 9 ? 2 : 7;  // smaller where there is more to do
  StackCase made;
  made.config.vocab_size = made.config.max_position_embeddings = 1024;
  made.config.num_hidden_layers = 2;
  made.config.hidden_size = random_width(random, groups);
  set_feed_forward(random, plan.kind, groups, made.config);
  set_attention(random, groups, made.config);
  check_config(made.config);
  made.weights = random_layers(random, made.config, plan.formats.weights, plan.routing);
  made.format = plan.formats.activations;
  made.kv = plan.kv;
  made.attention = plan.attention;
  made.feed_forward = plan.feed_forward;
  made.x_TD = random_floats(random, tokens * made.config.hidden_size);
  if (plan.poison == Poison::kNone) return made;
  if (random.one_in(2)) {
    poison_one(random, plan.poison, made.x_TD);
  } else {
    poison_layers(random, plan.poison, made.weights);
  }
  return made;
}

std::string describe(const Plan& plan, const Config& config) {
  const auto text = [](const char* name, int64_t value) {
    return std::string(", ") + name + " " + std::to_string(value);
  };
  return std::string(plan.formats.name) + text("T", plan.chunks.back()) +
         text("before", sum(plan.chunks) - plan.chunks.back()) + text("D", config.hidden_size) +
         text("F", config.intermediate_size) + text("S", config.intermediate_size_mlp) +
         text("E", config.num_local_experts) + text("K", config.num_experts_per_tok) +
         text("H", config.num_attention_heads) + text("G", config.num_key_value_heads) +
         text("d", config.head_dim) + text("kv", static_cast<int64_t>(plan.kv)) +
         text("routing", static_cast<int64_t>(plan.routing)) + poison_name(plan.poison);
}

// What no number ranks last: where no bias is one, the first experts win.
bool starts_at_zero(std::vector<int32_t>::const_iterator begin, int64_t count) {
  for (int64_t k = 0; k < count; ++k) {
    if (begin[k] != k) return false;
  }
  return true;
}

// Every choice is an expert and no token has one twice; where the bias decides, it did.
void check_choices(const std::string& what, const Plan& plan, const Config& config,
                   const std::vector<int32_t>& ids) {
  const int64_t K = config.num_experts_per_tok, T = sum(plan.chunks);
  for (int64_t first = 0; first < static_cast<int64_t>(ids.size()); first += K) {
    const auto begin = ids.begin() + first;
    const std::set<int32_t> chosen(begin, begin + K);
    const bool fits = *chosen.begin() >= 0 && *chosen.rbegin() < config.num_local_experts;
    if (!fits || static_cast<int64_t>(chosen.size()) != K) {
      throw Mismatch(what + ": the ids of choice " + std::to_string(first) + " are no experts");
    }
    const auto before = ids.begin() + first / (T * K) * (T * K);  // the layer's first token
    const bool same = plan.routing != Routing::kFree && plan.poison == Poison::kNone;
    const bool first_ones = same && plan.routing == Routing::kNoNumbers;
    if ((same && !std::equal(begin, begin + K, before)) ||
        (first_ones && !starts_at_zero(begin, K))) {
      throw Mismatch(what + ": the bias did not decide choice " + std::to_string(first));
    }
  }
}

std::vector<int64_t> random_chunks(Random& random, int64_t tokens) {
  std::vector<int64_t> chunks;
  while (tokens > 0) {
    const auto most = static_cast<size_t>(std::min<int64_t>(tokens, random.one_in(4) ? 90 : 6));
    chunks.push_back(static_cast<int64_t>(1 + random.below(most)));
    tokens -= chunks.back();
  }
  return chunks;
}

void check_plan(const Kernels& table, Random& random, Pools& pools, const Plan& plan) {
  const StackCase stack = make_case(random, plan);
  const std::string what = describe(plan, stack.config);
  const StackResult expected = run_stack(stack, table, pools.alone, plan.chunks);
  check_choices(what, plan, stack.config, expected.topk_ids);
  const auto compare = [&](const std::string& how, ThreadPool& pool,
                           const std::vector<int64_t>& chunks) {
    const StackResult actual = run_stack(stack, table, pool, chunks);
    expect_same(what + how + ", choices", actual.topk_ids, expected.topk_ids);
    expect_same(what + how, actual.x_TD, expected.x_TD);
  };
  for (ThreadPool& pool : pools.all) {
    compare(": " + std::to_string(pool.threads()) + " threads", pool, plan.chunks);
  }
  compare(": other chunks", pools.alone, random_chunks(random, sum(plan.chunks)));
}

// Whether a case is run: of the long ones only a third, and with `--few` a fifth of all.
bool keeps(Sizes sizes, int64_t index, int64_t tokens) {
  if (sizes == Sizes::kFew) return index % 5 == 0;
  return tokens <= 9 || index % 3 == 0;
}

Poison poison_of(int64_t index) { return index % 2 == 0 ? Poison::kNone : kPoisons[index / 2 % 3]; }

}  // namespace

int64_t check_feed_forward(const Kernels& table, Sizes sizes) {
  Random random(11);
  Pools pools;
  int64_t index = 0, cases = 0;
  for (const Formats& formats : kFormats) {
    for (const Kind kind : kKinds) {
      for (const int64_t tokens : kTokens) {
        const Routing routing = kRoutings[index % 4 % 3];
        const Poison poison = poison_of(index);
        if (!keeps(sizes, index++, tokens)) continue;
        check_plan(table, random, pools,
                   {.chunks = {tokens}, .kind = kind, .formats = formats, .routing = routing,
                    .poison = poison, .attention = false});
        ++cases;
      }
    }
  }
  return cases;
}

int64_t check_whole_attention(const Kernels& table, Sizes sizes) {
  constexpr int64_t kBefore[] = {0, 3, 64, 70};
  Random random(12);
  Pools pools;
  int64_t index = 0, cases = 0;
  for (const Formats& formats : kFormats) {
    for (const KvFormat kv : kCaches) {
      for (const int64_t tokens : kTokens) {
        const int64_t before = tokens > 100 ? 0 : kBefore[index % 4];
        const Poison poison = poison_of(index);
        if (!keeps(sizes, index++, tokens)) continue;
        std::vector<int64_t> chunks = {before, tokens};
        if (before == 0) chunks.erase(chunks.begin());
        check_plan(table, random, pools,
                   {.chunks = chunks, .kind = Kind::kDense, .formats = formats, .poison = poison,
                    .kv = kv, .feed_forward = false});
        ++cases;
      }
    }
  }
  return cases;
}

int64_t check_layers(const Kernels& table, Sizes sizes) {
  Random random(13);
  Pools pools;
  int64_t index = 0, cases = 0;
  for (const Kind kind : kKinds) {
    for (const int64_t tokens : kTokens) {
      const Formats& formats = kFormats[index % 3];
      const KvFormat kv = kCaches[index % 4 % 3];
      const Routing routing = kRoutings[index % 2];
      const Poison poison = poison_of(index);
      if (!keeps(sizes, index++, tokens)) continue;
      check_plan(table, random, pools,
                 {.chunks = {3, tokens}, .kind = kind, .formats = formats, .routing = routing,
                  .poison = poison, .kv = kv});
      ++cases;
    }
  }
  return cases;
}

}  // namespace mobilemoe::check
