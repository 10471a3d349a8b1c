// A small random generator: the same seed gives the same mutations everywhere.
#pragma once

#include <cstddef>
#include <cstdint>
#include <iterator>

namespace mobilemoe::fuzz {

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t next() {
    state_ += 0x9E3779B97F4A7C15u;
    uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  }
  // 0 to count - 1; 0 for a count of 0.
  size_t below(size_t count) { return count == 0 ? 0 : static_cast<size_t>(next() % count); }
  bool one_in(size_t count) { return below(count) == 0; }

  template <class Container>
  auto& pick(Container& items) {
    return items[below(std::size(items))];
  }

 private:
  uint64_t state_;
};

}  // namespace mobilemoe::fuzz
