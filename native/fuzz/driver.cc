// A fuzzing loop for compilers without libFuzzer: seeded, so the same seed makes the same inputs.
// It keeps the inputs that ended in a rare way, and mutates those. Understands libFuzzer's
// -runs=N -max_total_time=SECONDS -seed=N -artifact_prefix=PATH, or names of files to run once.
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <vector>

#include "outcomes.h"
#include "random.h"

#if MOBILEMOE_SANITIZERS
#include <sanitizer/common_interface_defs.h>
#endif

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned seed);

namespace mobilemoe::fuzz {
namespace {

constexpr size_t kMaxBytes = 1 << 16;
constexpr size_t kMaxCorpus = 4096;
constexpr unsigned kSecondsPerInput = 5;

struct Options {
  uint64_t runs = ~uint64_t{0}, seconds = 0, seed = 1;
  std::string prefix;
  std::vector<std::string> files;
};

Options parse(int count, char** arguments) {
  Options options;
  for (int i = 1; i < count; ++i) {
    const std::string argument = arguments[i], value = argument.substr(argument.find('=') + 1);
    if (argument.starts_with("-runs=")) options.runs = std::stoull(value);
    if (argument.starts_with("-max_total_time=")) options.seconds = std::stoull(value);
    if (argument.starts_with("-seed=")) options.seed = std::stoull(value);
    if (argument.starts_with("-artifact_prefix=")) options.prefix = value;
    if (!argument.starts_with("-")) options.files.push_back(argument);
  }
  return options;
}

std::vector<uint8_t> current;  // the input at work, kept for the report of a crash
std::string artifact;

void save_current() {
  std::ofstream(artifact, std::ios::binary)
      .write(reinterpret_cast<const char*>(current.data()),
             static_cast<std::streamsize>(current.size()));
  std::fprintf(stderr, "input written to %s\n", artifact.c_str());
}

[[noreturn]] void save_and_abort(int signal) {
  std::fprintf(stderr, "FINDING: signal %d\n", signal);
  save_current();
  std::_Exit(1);
}

void report_crashes() {
#if MOBILEMOE_SANITIZERS
  __sanitizer_set_death_callback(save_current);
#else
  ::signal(SIGSEGV, save_and_abort);
#endif
  ::signal(SIGABRT, save_and_abort);
  ::signal(SIGALRM, save_and_abort);
}

// What a message says, without its numbers and names.
std::string kind_of(const std::string& message) {
  std::string kind;
  for (const char c : message) {
    if (c == '\n') break;
    if (c < '0' || c > '9') kind.push_back(c);
  }
  return kind.substr(0, 60);
}

class Loop {
 public:
  explicit Loop(const Options& options) : random_(options.seed) {}

  void step() {
    current = corpus_.empty() ? std::vector<uint8_t>() : random_.pick(corpus_);
    const size_t size = current.size();
    current.resize(kMaxBytes);
    const auto seed = static_cast<unsigned>(random_.next());
    current.resize(LLVMFuzzerCustomMutator(current.data(), size, kMaxBytes, seed));
    ::alarm(kSecondsPerInput);
    const std::string outcome = run(current.data(), current.size());
    ::alarm(0);
    ++inputs_;
    accepted_ += outcome == "accepted";
    const bool rare = outcomes_[kind_of(outcome)]++ < 8;
    if (rare && corpus_.size() < kMaxCorpus) corpus_.push_back(current);
  }

  void report(double seconds) const {
    std::fprintf(stderr, "stat::number_of_executed_units: %llu\n",
                 static_cast<unsigned long long>(inputs_));
    std::fprintf(stderr, "stat::average_exec_per_sec: %.0f\n",
                 static_cast<double>(inputs_) / seconds);
    std::fprintf(stderr, "stat::accepted: %llu\n", static_cast<unsigned long long>(accepted_));
    std::fprintf(stderr, "stat::distinct_outcomes: %zu\n", outcomes_.size());
  }

  uint64_t inputs() const { return inputs_; }

 private:
  Random random_;
  std::vector<std::vector<uint8_t>> corpus_;
  std::map<std::string, uint64_t> outcomes_;
  uint64_t inputs_ = 0, accepted_ = 0;
};

int run_files(const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    std::ifstream file(name, std::ios::binary);
    const std::vector<char> bytes((std::istreambuf_iterator<char>(file)), {});
    current.assign(bytes.begin(), bytes.end());
    std::fprintf(stderr, "%s: %s\n", name.c_str(), run(current.data(), current.size()).c_str());
  }
  return 0;
}

}  // namespace
}  // namespace mobilemoe::fuzz

// Stands in for libFuzzer's: any small change of bytes.
extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size) {
  static mobilemoe::fuzz::Random random(0);
  if (size == 0 || (size < max_size && random.one_in(4))) {
    data[size] = static_cast<uint8_t>(random.next());
    return size + 1;
  }
  data[random.below(size)] ^= static_cast<uint8_t>(1 << random.below(8));
  return random.one_in(4) ? 1 + random.below(size) : size;
}

int main(int count, char** arguments) {
  using namespace mobilemoe::fuzz;
  const Options options = parse(count, arguments);
  if (!options.files.empty()) return run_files(options.files);
  artifact = options.prefix + "crash-seed-" + std::to_string(options.seed);
  report_crashes();
  Loop loop(options);
  const auto start = std::chrono::steady_clock::now();
  const auto seconds = [&] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  while (loop.inputs() < options.runs) {
    loop.step();
    if (options.seconds > 0 && loop.inputs() % 64 == 0 && seconds() >= options.seconds) break;
  }
  loop.report(seconds());
  return 0;
}
