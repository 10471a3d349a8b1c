// Products with weights [I, O], grouped along the output axis, of rows in any order.
#include <string>

#include "checks.h"
#include "product_case.h"

namespace mobilemoe::check {
namespace {

struct Shape {
  int64_t width, groups, slots;
};

std::string describe(const Shape& shape, Poison poison) {
  return "width " + std::to_string(shape.width) + ", columns " +
         std::to_string(shape.groups * kGroupSize) + ", slots " + std::to_string(shape.slots) +
         poison_name(poison);
}

// Calls `check(shape, poison, random)` for 1 to 70 slots and 1 to 53 groups.
template <class Check>
int64_t for_shapes(Sizes sizes, const Check& check) {
  constexpr int64_t kGroups[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 16, 17, 50, 53};
  Random random(3);
  int64_t cases = 0;
  for (int64_t slots = 1; slots <= 70; ++slots) {
    if (sizes == Sizes::kFew && slots > 13 && slots % 19 != 13) continue;
    for (int repeat = 0; repeat < (slots <= 13 ? 6 : 1); ++repeat) {
      // Few groups where there are many slots: those are other loops.
      const int64_t groups = kGroups[random.below(slots <= 4 ? 14 : 6)];
      const Shape shape{static_cast<int64_t>(32 * (1 + random.below(10))), groups, slots};
      check(shape, cases % 8 == 0 ? kPoisons[1 + random.below(2)] : Poison::kNone, random);
      ++cases;
    }
  }
  return cases;
}

// A scale that is no number, or a block of inputs whose scales are all 0.
void spoil_scales(Random& random, Poison poison, Int4Data& w) {
  const auto row = static_cast<int64_t>(random.below(static_cast<size_t>(w.matrix.rows)));
  const auto groups = static_cast<size_t>(w.matrix.columns / kGroupSize);
  const auto group = static_cast<int64_t>(random.below(groups));
  if (poison != Poison::kNone) {
    w.set_scale(row, group, poison_half(poison));
    return;
  }
  const int64_t first = row / kGroupSize * kGroupSize;
  for (int64_t i = first; i < first + kGroupSize; ++i) w.set_scale(i, group, 0);
}

// Some tokens, and for each slot the one that it computes: repeated, and in no order.
struct Slots {
  std::vector<float> x_TI;
  std::vector<int32_t> rows_S;
};

Slots random_slots(Random& random, const Shape& shape) {
  const size_t tokens = 1 + random.below(static_cast<size_t>(shape.slots) + 3);
  Slots slots{random_floats(random, static_cast<int64_t>(tokens) * shape.width),
              std::vector<int32_t>(static_cast<size_t>(shape.slots))};
  for (int32_t& row : slots.rows_S) row = static_cast<int32_t>(random.below(tokens));
  return slots;
}

template <class Data, class Function>
void check_floats(const Kernels& table, const Data& w, Function Kernels::*function,
                  const Slots& slots, const Shape& shape, const std::string& what,
                  Random& random) {
  std::vector<const float*> x;
  for (const int32_t row : slots.rows_S) x.push_back(slots.x_TI.data() + row * shape.width);
  const auto weight = [&](int64_t i, int64_t o) { return value_at(w.matrix, i, o); };
  const int64_t columns = shape.groups * kGroupSize;
  check_product(
      table,
      {what, shape.slots, columns, kGroupSize,
       [&](const Kernels& t, int64_t first, int64_t count, int64_t begin, int64_t end, float* y) {
         (t.*function)(w.matrix, x.data() + first, count, begin, end, y);
       },
       product_tolerance(shape.slots, columns, shape.width, weight, slots.x_TI, slots.rows_S)},
      random);
}

}  // namespace

int64_t check_expert_fp32(const Kernels& table, Sizes sizes) {
  return for_shapes(sizes, [&](const Shape& shape, Poison poison, Random& random) {
    Int4Data w = random_int4(random, shape.width, shape.groups * kGroupSize);
    Slots slots = random_slots(random, shape);
    random.one_in(2) ? spoil_scales(random, poison, w) : poison_one(random, poison, slots.x_TI);
    check_floats(table, w, &Kernels::expert_fp32, slots, shape, describe(shape, poison), random);
  });
}

int64_t check_expert_bf16(const Kernels& table, Sizes sizes) {
  return for_shapes(sizes, [&](const Shape& shape, Poison poison, Random& random) {
    const Bf16Data w = random_bf16(random, shape.width, shape.groups * kGroupSize);
    Slots slots = random_slots(random, shape);
    poison_one(random, poison, slots.x_TI);
    check_floats(table, w, &Kernels::expert_bf16, slots, shape, describe(shape, poison), random);
  });
}

int64_t check_expert_int8(const Kernels& table, Sizes sizes) {
  return for_shapes(sizes, [&](const Shape& shape, Poison poison, Random& random) {
    Int4Data w = random_int4(random, shape.width, shape.groups * kGroupSize);
    Slots slots = random_slots(random, shape);
    random.one_in(2) ? spoil_scales(random, poison, w) : poison_one(random, poison, slots.x_TI);
    const ScaledData scaled = scale(slots.x_TI, shape.width);
    check_product(
        table,
        {describe(shape, poison), shape.slots, shape.groups * kGroupSize, kGroupSize,
         [&](const Kernels& t, int64_t first, int64_t count, int64_t begin, int64_t end,
             float* y) {
           t.expert_int8(w.matrix, scaled.rows(), slots.rows_S.data() + first, count, begin, end,
                         y);
         },
         {}},
        random);
  });
}

}  // namespace mobilemoe::check
