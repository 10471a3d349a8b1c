// The mutator that libFuzzer calls, and our own driver: a few changes to the model files that the
// bytes stand for, now and then a fresh start from a valid file, now and then bytes as such.
#include <algorithm>
#include <cstring>

#include "input.h"
#include "mutations.h"
#include "random.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

namespace mobilemoe::fuzz {
namespace {

std::string mutated(const Input& before, Random& random) {
  Input input = before;
  const bool hopeless = before.files.size() == 1 && before.files[0].size() < 16;
  if (hopeless || random.one_in(50)) {
    input.variant = random.below(variants().size());
    input.files = {valid_file(variants()[input.variant])};
  }
  for (size_t changes = 1 + random.below(4); changes > 0; --changes) mutate(input, random);
  return encode(input);
}

}  // namespace
}  // namespace mobilemoe::fuzz

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned seed) {
  using namespace mobilemoe::fuzz;
  Random random(seed);
  if (random.one_in(20)) return LLVMFuzzerMutate(data, size, max_size);
  const std::string bytes = mutated(decode(data, size), random);
  const size_t kept = std::min(bytes.size(), max_size);
  std::memcpy(data, bytes.data(), kept);
  return kept;
}
