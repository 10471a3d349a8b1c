"""How far the int8 mode of torch and of the engine may differ, derived.

Both round the same values to the same integers, but they add in another order: what reaches a
rounding differs by e, some units of 2^-24, and an integer flips by one step where a half lies
between the two. Halves are spread evenly over a step s, so a value flips with the probability
|e| / s, and the expected number of flips is the sum of E|e| / s = sqrt(2 / pi) sd(e) / s. Where
s is small against |e| times the number of values (attention's second terms) flips are many and
small, an error of the variance E|e| s; elsewhere they are rare and whole, and to be counted:

* a token without a flip differs by the rounding of its sums, `rounding`;
* tokens that differ by more number lambda + 4 sqrt(lambda) + 4 at most (Poisson), `flips`;
* such a token differs by less than int8 itself does, `int8`: some of its values are a step off,
  while int8 moves every one by s / sqrt(12);
* a flip in the cache reaches all later tokens, those of the first position the most: there the
  sum over tokens is held against the rounding and CACHE_FLIPS of the largest flips. With an
  expected number below 1 more are met in 1 of 50 layers, and all of that size next to never.

What the engine rounds and torch leaves out counts as rounding: with an int8 cache, queries of 15
bits, and softmax weights of 14 bits, in steps of the largest weight times scale over 16383.
Variances run through a
layer as in `mobilemoe.verify.bounds`, whose legend holds here, too.
"""

from __future__ import annotations

import math

import numpy as np

from mobilemoe.engine import Kv
from mobilemoe.verify.bounds import Bounds, rotated_variance, score_part, split_variance
from mobilemoe.verify.noise import INT8_LEVELS, Int8Noise, RoundingNoise, blocks, through
from mobilemoe.verify.trace import AttentionTrace, Product

CACHE_FLIPS = 3
QUERY_LEVELS, WEIGHT_LEVELS = 16256, 16383  # native/attention.cc, native/quantize_scale.h


class FlipNoise(RoundingNoise):
    """Float32 rounding; counts in `flips` the integers that it is expected to flip."""

    flips = 0.0

    def count(self, variance, step) -> None:
        """Add the flips of values whose errors have `variance`, rounded to multiples of `step`."""
        steps = np.broadcast_to(step, variance.shape)
        usable = steps > 0
        self.flips += float((mean_error(variance)[usable] / steps[usable]).sum())

    def product(self, product: Product, variance_TI):
        """Count or spread the flips of the product's input, then round its sums."""
        variance_TI = np.zeros_like(product.x_TI) if variance_TI is None else variance_TI
        step_TI = np.repeat(np.abs(blocks(product.x_TI)).max(-1) / INT8_LEVELS, 32, axis=1)
        if product.layout == "expert":
            # b = x s / (step S): its error is that of x times s / S, for each group of outputs.
            scales_BiG = product.weight.scales.reshape(-1, 32, product.weight.scales.shape[1])
            shares_IG = scales_BiG / scales_BiG.max(1, keepdims=True)
            shares_IG = shares_IG.reshape(product.weight.scales.shape)
            for share_I in shares_IG.T:
                self.count(variance_TI * np.square(share_I), step_TI)
        elif product.terms == 2:
            step_TI = step_TI / (2 * INT8_LEVELS)
            variance_TI = variance_TI + mean_error(variance_TI) * step_TI
        elif product.layout == "linear":
            self.count(variance_TI, step_TI)
        return super().product(product, variance_TI)


def mean_error(variance):
    """Return E|e| of the difference of two sides, each with `variance`."""
    return np.sqrt(2 / np.pi) * np.sqrt(2 * variance)


class FlipBounds(Bounds):
    """Watches a reference of `tokens` tokens in int8 mode with a cache of `kv`."""

    def __init__(self, tokens: int, kv: Kv) -> None:
        self.noise, self.kv = FlipNoise(), kv
        self.largest_cache_flip = 0.0
        super().__init__([self.noise, Int8Noise(kv)], tokens)

    def attention(self, trace: AttentionTrace) -> None:
        """Add what torch leaves out to the rounding; look at the flips of the cache."""
        super().attention(trace)
        assert self.noise.flips == 0  # two-term inputs are not counted
        if self.kv != "int8":
            return
        self._add(self.noise, "attention", through(trace.o, fine_variance(trace)))
        k_GTd = rotated_variance(self.noise, trace, trace.k, trace.k_GTd, trace.k_rms_GT)
        v_GTd = split_variance(self.noise, trace.v, trace.v_GTd.shape[-1])
        for variance, x_GTd in ((k_GTd, trace.k_GTd), (v_GTd, trace.v_GTd)):
            self.noise.count(variance, head_steps(x_GTd))
        assert self.noise.flips < 1, self.noise.flips
        self.noise.flips = 0
        self.largest_cache_flip = largest_cache_flip(trace)

    def allowed_flips(self) -> float:
        """Return how many tokens a flip may have touched since the last call."""
        flips, self.noise.flips = self.noise.flips, 0.0
        return flips + 4 * math.sqrt(flips) + 4


def largest_cache_flip(trace: AttentionTrace) -> float:
    """Return the largest squared change [T, D] that one step of one cached integer makes.

    A value v_n[i] moves the output of head h by p_tn step at i, for all later t; a key k_n[i]
    moves the scores by q_t[i] step / sqrt(d), and the output by p_tn (v_n - o_t) times that.
    """
    repeat, d = len(trace.q_HTd) // len(trace.k_GTd), trace.q_HTd.shape[-1]
    steps = [head_steps(x_GTd)[..., 0] for x_GTd in (trace.k_GTd, trace.v_GTd)]
    key_GNd, value_GNd = np.zeros_like(trace.k_GTd), np.zeros_like(trace.v_GTd)
    for h, p_TN in enumerate(trace.p_HTN):
        g, o_Dd = h // repeat, trace.o.weight.values[:, h * d : h * d + d]
        v_Nd = trace.v_GTd[g]
        value_GNd[g] += np.square(p_TN).sum(0)[:, None] * np.square(o_Dd).sum(0)
        deviation_TND = (v_Nd[None] - (p_TN @ v_Nd)[:, None]) @ o_Dd.T
        moved_TN = np.square(p_TN) * np.square(deviation_TND).sum(-1)
        key_GNd[g] += moved_TN.T @ np.square(trace.q_HTd[h]) / d
    sizes = zip(steps, (key_GNd, value_GNd), strict=True)
    flips = (step_GN[..., None] ** 2 * size_GNd for step_GN, size_GNd in sizes)
    return max(float(flip_GNd.max()) for flip_GNd in flips)


def head_steps(x_GTd):
    """Return the steps [G, T, 1] of a cache."""
    return np.abs(x_GTd).max(-1, keepdims=True) / INT8_LEVELS


def fine_variance(trace: AttentionTrace):
    """Return the variance [T, H d] of queries of 15 bits and softmax weights of 14."""
    step_HT1 = np.abs(trace.q_HTd).max(-1, keepdims=True) / QUERY_LEVELS
    query_HTd = np.broadcast_to(np.square(step_HT1) / 12, trace.q_HTd.shape)
    repeat = len(trace.q_HTd) // len(trace.k_GTd)
    parts = []
    for head, (p_TN, query_Td) in enumerate(zip(trace.p_HTN, query_HTd, strict=True)):
        v_Nd = trace.v_GTd[head // repeat]
        from_q_Td = score_part(Int8Noise(), trace, head, query_Td, np.zeros_like(v_Nd))
        step_N1 = np.abs(v_Nd).max(-1, keepdims=True) / INT8_LEVELS
        largest_T1 = (p_TN * step_N1.T).max(-1, keepdims=True)
        integers_Nd = v_Nd / np.where(step_N1 > 0, step_N1, 1)
        seen_TN = (p_TN > 0).astype(float)
        from_p_Td = np.square(largest_T1 / WEIGHT_LEVELS) / 12 * (seen_TN @ np.square(integers_Nd))
        parts.append(from_q_Td + from_p_Td)
    return np.stack(parts, axis=1).reshape(len(trace.q.x_TI), -1)
