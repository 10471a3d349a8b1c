// Compares the kernels of this CPU with the portable ones, function by function.
//
//   kernel_check [--few] [--threads N] [--team] [--list] [table...]
//
// Without tables: all that this CPU runs. `--few` leaves out most pairs of sizes; `--threads N`
// runs only what several threads do at once; `--team` runs only the parallel parts of the engine
// over small models; `--list` prints the names of the tables. Prints one
// line per function; the exit status is 1 after a mismatch, 2 for a wrong argument.
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>
#include <vector>

#include "checks.h"
#include "compare.h"
#include "errors.h"

namespace mobilemoe::check {
namespace {

struct Check {
  const char* function;
  int64_t (*run)(const Kernels& table, Sizes sizes);
  const char* means;
};

constexpr const char* kSame = "the same bits";
constexpr const char* kNear = "within the bound";

constexpr Check kChecks[] = {
    {"quantize_row", check_quantize_row, kSame},
    {"scale_row", check_scale_row, kSame},
    {"linear_int8", check_linear_int8, kSame},
    {"linear_fp32", check_linear_fp32, kNear},
    {"linear_bf16", check_linear_bf16, kNear},
    {"expert_int8", check_expert_int8, kSame},
    {"expert_fp32", check_expert_fp32, kNear},
    {"expert_bf16", check_expert_bf16, kNear},
    {"silu_multiply", check_silu_multiply, kNear},
    {"widen_fp16", check_widen_fp16, kSame},
    {"dot", check_dot, kNear},
    {"attention_scores", check_attention_scores, kNear},
    {"attention_values", check_attention_values, kNear},
    {"attend_int8", check_attend_int8, kNear},
};

constexpr Check kTeamChecks[] = {
    {"team", check_team, "in order"},
    {"feed_forward", check_feed_forward, kSame},
    {"attention", check_whole_attention, kSame},
    {"layers", check_layers, kSame},
};

struct Arguments {
  Sizes sizes = Sizes::kAll;
  bool team = false;
  int threads = 0;  // 0: check the functions
  bool list = false;
  std::vector<std::string> tables;
};

Arguments parse(int count, char** values) {
  Arguments arguments;
  for (int i = 1; i < count; ++i) {
    const std::string value = values[i];
    if (value == "--few") {
      arguments.sizes = Sizes::kFew;
    } else if (value == "--team") {
      arguments.team = true;
    } else if (value == "--list") {
      arguments.list = true;
    } else if (value == "--threads" && i + 1 < count) {
      arguments.threads = std::atoi(values[++i]);
      if (arguments.threads < 1) throw InvalidArgument("--threads needs a number of at least 1");
    } else {
      choose_kernels(value);  // throws, with the names that are allowed here
      arguments.tables.push_back(value);
    }
  }
  if (arguments.tables.empty()) arguments.tables = available_kernels();
  return arguments;
}

// Prints what `run` found; false after a mismatch.
template <class Run>
bool report(const Kernels& table, const char* function, const char* means, const Run& run) {
  try {
    const auto cases = static_cast<long long>(run());
    std::printf("%-13s %-17s %5lld cases: %s\n", table.name, function, cases, means);
    std::fflush(stdout);
    return true;
  } catch (const Mismatch& mismatch) {
    std::printf("%-13s %-17s MISMATCH: %s\n", table.name, function, mismatch.what());
    return false;
  }
}

int run_checks(const Arguments& arguments) {
  bool good = true;
  if (arguments.list) {
    for (const std::string& name : arguments.tables) std::printf("%s\n", name.c_str());
    return 0;
  }
  for (const std::string& name : arguments.tables) {
    const Kernels& table = choose_kernels(name);
    if (arguments.threads > 0) {
      const std::string what = std::to_string(arguments.threads) + " threads";
      good &= report(table, what.c_str(), kSame,
                     [&] { return check_threads(table, arguments.threads); });
      continue;
    }
    const auto checks = arguments.team ? std::span<const Check>(kTeamChecks) : kChecks;
    for (const Check& check : checks) {
      good &= report(table, check.function, check.means,
                     [&] { return check.run(table, arguments.sizes); });
    }
  }
  return good ? 0 : 1;
}

}  // namespace
}  // namespace mobilemoe::check

int main(int count, char** values) {
  try {
    return mobilemoe::check::run_checks(mobilemoe::check::parse(count, values));
  } catch (const mobilemoe::InvalidArgument& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 2;
  }
}
