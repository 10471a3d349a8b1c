// What training does element by element, in vector code of its own: loops that are left to the
// compiler become scalar code once a comparison or a conversion is in them. Over the vector types
// of train_gemm_tile.h; included once per instruction set: everything here has internal linkage.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "exp_inline.h"

namespace mobilemoe {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// exp_inline, lane by lane; where the instruction set fuses a b + c, with fewer roundings.
template <class V>
typename V::Register exp_lanes(typename V::Register x) {
  using Floats = typename V::Register;
  using Ints = decltype(x < x);
  const auto all = [](float value) { return V::broadcast(value); };
  Floats clamped = x > all(kExpLow) ? x : all(kExpLow);  // also for NaN
  clamped = clamped < all(kExpHigh) ? clamped : all(kExpHigh);
  const Floats n = V::multiply_add(clamped, all(kLog2E), all(kRoundMagic)) - all(kRoundMagic);
  Floats r = V::multiply_add(n, all(-kLn2High), clamped);
  r = V::multiply_add(n, all(-kLn2Low), r);
  Floats series = all(kExpSeries[0]);
  for (int i = 1; i < 8; ++i) series = V::multiply_add(series, r, all(kExpSeries[i]));
  const Ints power = (__builtin_convertvector(n, Ints) + 127) << 23;
  const Floats value = x < all(kExpLow) ? V::zero() : series * std::bit_cast<Floats>(power);
  return x != x ? x : value;
}

// The first `count` floats, fewer than a vector has; `rest` in the other lanes.
template <class V>
typename V::Register load_part(const float* from, int64_t count, float rest) {
  alignas(64) float lanes[V::kLanes];
  for (int64_t i = 0; i < V::kLanes; ++i) lanes[i] = i < count ? from[i] : rest;
  return V::load(lanes);
}

template <class V>
void store_part(float* to, int64_t count, typename V::Register x) {
  alignas(64) float lanes[V::kLanes];
  V::store(lanes, x);
  std::memcpy(to, lanes, static_cast<size_t>(count) * sizeof *to);
}

// Calls `work(i, load, store)` for every vector of [0, width), the last one where it is not full.
template <class V, class Work>
void for_lanes(int64_t width, float rest, const Work& work) {
  int64_t i = 0;
  for (; i + V::kLanes <= width; i += V::kLanes) {
    work(i, [](const float* from) { return V::load(from); },
         [](float* to, typename V::Register x) { V::store(to, x); });
  }
  if (const int64_t left = width - i; left > 0) {
    work(i, [=](const float* from) { return load_part<V>(from, left, rest); },
         [=](float* to, typename V::Register x) { store_part<V>(to, left, x); });
  }
}

template <class V>
void swiglu_row(const float* gate, const float* up, int64_t width, float* a) {
  const auto one = V::broadcast(1.0f);
  for_lanes<V>(width, 0, [&](int64_t i, const auto& load, const auto& store) {
    const auto g = load(gate + i);
    store(a + i, g / (one + exp_lanes<V>(-g)) * load(up + i));
  });
}

// d silu(g) / dg = sigmoid(g) (1 + g (1 - sigmoid(g)))
template <class V>
void swiglu_gradient_row(const float* gate, const float* up, const float* grad_a, int64_t width,
                         float* a, float* grad_gate, float* grad_up) {
  const auto one = V::broadcast(1.0f);
  for_lanes<V>(width, 0, [&](int64_t i, const auto& load, const auto& store) {
    const auto g = load(gate + i), u = load(up + i), grad = load(grad_a + i);
    const auto sigmoid = one / (one + exp_lanes<V>(-g));
    const auto silu = g * sigmoid;
    store(a + i, silu * u);
    store(grad_gate + i, grad * u * (sigmoid + silu * (one - sigmoid)));
    store(grad_up + i, grad * silu);
  });
}

// The lanes of x, halves onto halves.
template <class V, class Combine>
float across(typename V::Register x, const Combine& combine) {
  alignas(64) float lanes[V::kLanes];
  V::store(lanes, x);
  for (int64_t half = V::kLanes / 2; half > 0; half /= 2) {
    for (int64_t i = 0; i < half; ++i) lanes[i] = combine(lanes[i], lanes[i + half]);
  }
  return lanes[0];
}

template <class V>
float largest_of(const float* x, int64_t width) {
  auto largest = V::broadcast(-kInfinity);
  for_lanes<V>(width, -kInfinity, [&](int64_t i, const auto& load, const auto&) {
    const auto now = load(x + i);
    largest = now > largest ? now : largest;
  });
  return across<V>(largest, [](float a, float b) { return a > b ? a : b; });
}

// x becomes e^(scale x - shift); returns their sum. The scale is positive.
template <class V>
float exp_row(float* x, int64_t width, float scale, float shift) {
  auto sum = V::zero();
  for_lanes<V>(width, -kInfinity, [&](int64_t i, const auto& load, const auto& store) {
    const auto e = exp_lanes<V>(load(x + i) * V::broadcast(scale) - V::broadcast(shift));
    store(x + i, e);
    sum = sum + e;
  });
  return across<V>(sum, [](float a, float b) { return a + b; });
}

template <class V>
void scale_row(float* x, int64_t width, float factor) {
  for_lanes<V>(width, 0, [&](int64_t i, const auto& load, const auto& store) {
    store(x + i, load(x + i) * V::broadcast(factor));
  });
}

template <class V>
float cross_entropy_row(float* logits, int64_t width, int64_t target) {
  const float largest = largest_of<V>(logits, width);
  const float distance = largest - logits[target];
  const float sum = exp_row<V>(logits, width, 1, largest);
  scale_row<V>(logits, width, 1.0f / sum);
  logits[target] -= 1.0f;
  return std::log(sum) + distance;
}

template <class V>
float softmax_row(float* x, int64_t width, float scale) {
  const float largest = scale * largest_of<V>(x, width);
  const float sum = exp_row<V>(x, width, scale, largest);
  scale_row<V>(x, width, 1.0f / sum);
  return std::log(sum) + largest;
}

// d p_j / d (scale x_i) = p_j ([i = j] - p_i)
template <class V>
void softmax_gradient_row(float* x, float* gradient, int64_t width, float scale, float log_sum) {
  exp_row<V>(x, width, scale, log_sum);
  auto sums = V::zero();
  for_lanes<V>(width, 0, [&](int64_t i, const auto& load, const auto&) {
    sums = V::multiply_add(load(x + i), load(gradient + i), sums);
  });
  const float mean = across<V>(sums, [](float a, float b) { return a + b; });
  for_lanes<V>(width, 0, [&](int64_t i, const auto& load, const auto& store) {
    const auto change = load(gradient + i) - V::broadcast(mean);
    store(gradient + i, load(x + i) * V::broadcast(scale) * change);
  });
}

}  // namespace
}  // namespace mobilemoe
