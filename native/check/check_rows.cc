// Activations to integers: quantize_row and scale_row, whose bits every table must share.
#include <string>

#include "checks.h"
#include "compare.h"
#include "inputs.h"

namespace mobilemoe::check {
namespace {

constexpr int64_t kWidths = 10;  // 32 to 320

// A row with every kind of block: ordinary, with ties, tiny, zero, huge.
std::vector<float> mixed_row(Random& random, int64_t width) {
  std::vector<float> x = random_floats(random, width);
  for (int64_t first = 0; first < width; first += kGroupSize) {
    constexpr float kFactors[] = {1.0f, 1.0f, 1e-29f, 1e-33f, 0.0f, 1e30f, 1e37f};
    const float factor = random.pick(kFactors);
    const bool ties = random.one_in(4);  // halves of a step, where rounding to even shows
    for (int64_t i = first; i < first + kGroupSize; ++i) {
      const auto step = static_cast<float>(static_cast<int>(random.below(255)) - 127);
      float& value = x[static_cast<size_t>(i)];
      value = ties ? 0.5f * step : factor * value;
    }
    if (ties) x[static_cast<size_t>(first)] = 127.0f;
  }
  return x;
}

// Calls `check(row, name)` for rows of every width.
template <class Check>
int64_t for_rows(Sizes sizes, const Check& check) {
  Random random(1);
  int64_t cases = 0;
  for (int64_t blocks = 1; blocks <= kWidths; ++blocks) {
    for (int repeat = 0; repeat < (sizes == Sizes::kAll ? 20 : 4); ++repeat) {
      for (const Poison poison : kPoisons) {
        std::vector<float> x = mixed_row(random, blocks * kGroupSize);
        poison_one(random, poison, x);
        check(x, "width " + std::to_string(x.size()) + poison_name(poison));
        ++cases;
      }
    }
  }
  return cases;
}

}  // namespace

int64_t check_quantize_row(const Kernels& table, Sizes sizes) {
  return for_rows(sizes, [&](const std::vector<float>& x, const std::string& what) {
    const size_t blocks = x.size() / kGroupSize;
    std::vector<int8_t> values[2];
    std::vector<float> scales[2], rests[2];
    std::vector<int32_t> sums[2];
    const bool rest = x.size() % 64 == 0;  // it is asked for, or it is not
    const Kernels* tables[2] = {&table, &kPortableKernels};
    for (int i = 0; i < 2; ++i) {
      values[i].resize(x.size());
      scales[i].resize(blocks);
      sums[i].resize(blocks);
      rests[i].resize(x.size());
      tables[i]->quantize_row(x.data(), static_cast<int64_t>(x.size()), values[i].data(),
                              scales[i].data(), sums[i].data(), rest ? rests[i].data() : nullptr);
    }
    expect_same(what + ", values", values[0], values[1]);
    expect_same(what + ", scales", scales[0], scales[1]);
    expect_same(what + ", sums", sums[0], sums[1]);
    expect_same(what + ", rest", rests[0], rests[1]);
  });
}

int64_t check_scale_row(const Kernels& table, Sizes sizes) {
  return for_rows(sizes, [&](const std::vector<float>& x, const std::string& what) {
    std::vector<float> values[2], scales[2];
    const Kernels* tables[2] = {&table, &kPortableKernels};
    for (int i = 0; i < 2; ++i) {
      values[i].resize(x.size());
      scales[i].resize(x.size() / kGroupSize);
      tables[i]->scale_row(x.data(), static_cast<int64_t>(x.size()), values[i].data(),
                           scales[i].data());
    }
    expect_same(what + ", values", values[0], values[1]);
    expect_same(what + ", scales", scales[0], scales[1]);
  });
}

}  // namespace mobilemoe::check
