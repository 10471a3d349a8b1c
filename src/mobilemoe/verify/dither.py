"""What two correct computations of the same model differ by, drawn at random, part by part.

Copy 0 of the first axis is exact. In every other one the difference to it, D, is a sample of what
two sides may differ by there: each rounds its float32 sums (`noise.py`, twice the variance), and
both round values to integers times a step s where the engine's int8 mode does. Two values that
differ by D fall on integers that differ by floor(|D| / s + u), u even in [0, 1): a half lies
anywhere between them (B. Widrow, "A study of rough amplitude quantization by means of Nyquist
sampling theory", IRE Trans. Circuit Theory 3(4), 1956). The expectation is D: it adds variance, no
bias, rare whole steps where |D| << s, and s^2 / 6 where it is not, which is the most it can add.
With `worst` it adds that everywhere: what two sides have in common that round all values anew.

Scales are maxima and differ, too, by rho = s_D / s: of D then only D - x (rho - 1) is rounded.

C copies, T tokens, I inputs, O outputs.
"""

from __future__ import annotations

import numpy as np

from mobilemoe.engine import Kv
from mobilemoe.verify.files import Float64
from mobilemoe.verify.noise import (
    F16_VARIANCE,
    INT8_LEVELS,
    ROUNDING_VARIANCE,
    UNIFORM_VARIANCE,
    squares_share,
    sum_share,
)
from mobilemoe.weights import GROUP_SIZE

SIDES = 2
QUERY_LEVELS, WEIGHT_LEVELS = 16256, 16383  # native/attention.cc, native/quantize_scale.h


class Dither:
    """Draws the differences. Arrays are [C, ...]; what is added is added in place.

    `int8` is whether activations are rounded to integers, `kv` what keys and values are stored as.
    """

    def __init__(self, seed: int, int8: bool, kv: Kv, worst: bool = False) -> None:
        self._random = np.random.default_rng(seed)
        self.int8, self._kv, self._worst = int8, kv, worst

    def add(self, x: Float64, variance: Float64) -> Float64:
        """Add errors of `variance`, of the shape of x[0], to all copies but the first."""
        drawn = self._random.standard_normal(x[1:].shape)
        x[1:] += np.sqrt(variance) * drawn
        return x

    def steps(self, x: Float64, operations: float) -> Float64:
        """Add what so many elementwise float32 steps round away on either side."""
        return self.add(x, SIDES * operations * ROUNDING_VARIANCE * np.square(x[0]))

    def product(
        self, x: Float64, w_IO: Float64, y: Float64, terms: Float64 | None = None
    ) -> Float64:
        """Add what float32 sums round away in y = x W, of I terms unless said otherwise."""
        n = np.asarray(w_IO.shape[-2] if terms is None else terms, float)
        squares = np.square(x[0]) @ np.square(w_IO)
        variance = squares_share(n) * squares + sum_share(n) * np.square(y[0])
        return self.add(y, SIDES * variance)

    def integers(self, x: Float64, step: Float64, ratio: Float64 | float = 1.0) -> Float64:
        """Return x rounded on both sides to multiples of `step` (0: not at all), as copy 0 is.

        `ratio` is rho, [C, ...]. Copy 0 stays as it is: what it rounds is no difference.
        """
        base = x[:1] * ratio
        rest = x - base
        usable = np.where(step > 0, step, 1.0)
        drawn = self._random.random(x.shape)
        if self._worst:
            jump = rest + step * (drawn - self._random.random(x.shape))
        else:
            jump = step * np.sign(rest) * np.floor(np.abs(rest) / usable + drawn)
        result: Float64 = np.where(step > 0, base + jump, x)
        result[0] = x[0]
        return result

    def activations(self, x: Float64, terms: int = 1) -> Float64:
        """Return x [C, T, I] as products read it: int8 in blocks of 32, in one or two terms."""
        if not self.int8:
            return x
        blocks = x.reshape(*x.shape[:-1], -1, GROUP_SIZE)
        scale, ratio = scales(blocks)
        if terms == 2:  # the second row takes up what the first does otherwise, scale and all
            return self.integers(blocks, scale / (2 * INT8_LEVELS)).reshape(x.shape)
        return self.integers(blocks, scale, ratio).reshape(x.shape)

    def stored(self, x: Float64) -> Float64:
        """Return keys or values [C, G, T, d] as they come out of the cache."""
        if self._kv == "fp16":  # which torch leaves out
            return self.add(x, F16_VARIANCE * np.square(x[0]))
        return x if self._kv == "fp32" else self.integers(x, *scales(x))

    def queries(self, q: Float64) -> Float64:
        """Add what 15 bits leave of queries [C, H, T, d] where the cache is int8, on one side."""
        if self._kv != "int8":
            return q
        step = np.abs(q[0]).max(-1, keepdims=True) / QUERY_LEVELS
        return self.add(q, np.broadcast_to(UNIFORM_VARIANCE * np.square(step), q[0].shape))

    def softmax_weights(self, p: Float64, v: Float64) -> Float64:
        """Add what 14 bits leave of weights [C, H, T, N], scales of values [C, H, N, d] in them."""
        if self._kv != "int8":
            return p
        scale_HN = np.abs(v[0]).max(-1) / INT8_LEVELS
        largest = (p[0] * scale_HN[:, None]).max(-1, keepdims=True)
        safe_HN = np.where(scale_HN > 0, scale_HN, np.inf)
        step = largest / WEIGHT_LEVELS / safe_HN[:, None]
        return self.add(p, np.where(p[0] > 0, UNIFORM_VARIANCE * np.square(step), 0))


def scales(x: Float64) -> tuple[Float64, Float64]:
    """Return the int8 scale of copy 0 over the last axis, and that of each copy over it."""
    largest = np.abs(x).max(-1, keepdims=True)
    ratio = np.divide(largest, largest[:1], out=np.ones_like(largest), where=largest[:1] > 0)
    return largest[0] / INT8_LEVELS, ratio
