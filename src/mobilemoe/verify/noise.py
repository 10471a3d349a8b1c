"""Where two correct columns differ: three sources of error, as variances.

Each class says how far the output of one matrix product may stray when its two sides are computed
with and without that source. All are variances of independent errors of mean zero: the classical
worst case grows with n, the number of terms, and is never met; the root mean square of n
independent errors grows with sqrt(n), which is what is observed (N. J. Higham, T. Mary, "A new
approach to probabilistic rounding error analysis", SIAM J. Sci. Comput. 41(5), 2019).

Rounding (float32 against float64). Rounding to nearest changes x by at most u |x|, u = 2^-24;
evenly spread over the interval between neighbours, with mantissas spread as logarithms, the
variance is about u^2 x^2 / 6. A sum y of n products p_i, added one after the other, rounds each
partial sum s_k. As a walk that ends at y (a Brownian bridge with drift) these have together the
mean square n (S / 6 + y^2 / 3), S = sum p_i^2; several sums side by side make that smaller by
about their number. The products themselves round once (not at all where they are fused).

Int8 (the engine's exact mode against its fast one; native/kernels.h, native/activations.h). A block
of 32 activations becomes integers times scale = max |x| / 127; the error is evenly spread over
+- scale / 2: variance scale^2 / 12 (W. R. Bennett, "Spectra of quantized signals", Bell Syst.
Tech. J. 27, 1948). What reads two rows, the second of which holds the rest that the first leaves,
errs by 1 / 254 of that; so do all four projections of attention. A routed expert is grouped along
its output, so the engine folds the weight's scale into the activation, b = x s, once for each
group of outputs, and rounds b to integers times the scale max |x| / 127 max |s|: the maxima over
32 inputs, each of its own, so that their product is at least max |b| / 127. The error then meets
the weight's integers. The cache holds keys, after RoPE and their norm, and values as integers
times a scale for each head and position, max over the head's d / 127. Queries have 15 bits and
softmax weights 14 bits there: 1 / 128 of the error of an int8 or less, which is left out. Where
the head dim is none that int8 takes, the cache holds F16 and x changes by at most 2^-11 |x|.

Int4 (float weights against the same weights rounded). A group of 32 weights has its scale;
rounding errs evenly over +- scale / 2: variance scale^2 / 12 for each weight, met by x^2. The same
weights serve every token.

T tokens (or slots of an expert), I inputs, O outputs, B blocks of 32 inputs, G groups of 32
outputs.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

import numpy as np

from mobilemoe.engine import Kv
from mobilemoe.verify.files import Float64, Piece
from mobilemoe.verify.pairs import Kind
from mobilemoe.verify.trace import Product
from mobilemoe.weights import GROUP_SIZE

UNIT_ROUNDOFF = 2.0**-24
ROUNDING_VARIANCE = UNIT_ROUNDOFF**2 / 6
# Partial sums side by side. A matrix library may keep 1, our kernels keep 8 to 32: with 2 even the
# first stays within sqrt(2) of what is expected, and the others within a factor of 4 below it.
LANES = 2
INT8_LEVELS = 127
UNIFORM_VARIANCE = 1 / 12
F16_VARIANCE = 2.0**-22 / 6

Terms = TypeVar("Terms", float, Float64)  # how many a sum has, or each of several


class Noise(Protocol):
    """One source of error; variances are elementwise."""

    kind: Kind
    shared: bool  # the error lies in the weights: all tokens meet the same one

    def rounding(self, value: Float64, operations: float) -> Float64:
        """Return the variance that `operations` elementwise steps add to `value`."""

    def product(self, product: Product, variance_TI: Float64 | None) -> Float64:
        """Return the variance [T, O] of `product`, whose input has `variance_TI` (None: 0)."""

    def cached(self, x_GNd: Float64) -> Float64:
        """Return the variance that keys or values x get in the cache."""


class RoundingNoise:
    """Float32 arithmetic."""

    kind: Kind = "rounding"
    shared = False

    def rounding(self, value: Float64, operations: float) -> Float64:
        """Return operations u^2 / 6 value^2."""
        result: Float64 = operations * ROUNDING_VARIANCE * np.square(value)
        return result

    def product(self, product: Product, variance_TI: Float64 | None) -> Float64:
        """Add the rounding of products and partial sums."""
        terms = product.x_TI.shape[1]
        own_TI = squares_share(terms) * np.square(product.x_TI)
        own_TO = sum_share(terms) * np.square(product.y_TO)
        result: Float64 = through(product, plus(own_TI, variance_TI)) + own_TO
        return result

    def cached(self, x_GNd: Float64) -> Float64:
        """Return zeros: a cache of floats changes nothing."""
        return np.zeros_like(x_GNd)


class Int8Noise:
    """Activations as int8; keys and values as `kv` says."""

    kind: Kind = "int8"
    shared = False

    def __init__(self, kv: Kv = "int8") -> None:
        self._kv = kv

    def rounding(self, value: Float64, operations: float) -> Float64:
        """Return zeros: this source is in the products alone."""
        return np.zeros_like(value)

    def product(self, product: Product, variance_TI: Float64 | None) -> Float64:
        """Add the error of the quantised input; the router reads floats."""
        if product.layout == "linear":
            own_TI = block_variance(product.x_TI) / (2 * INT8_LEVELS) ** (2 * (product.terms - 1))
            return through(product, plus(own_TI, variance_TI))
        spread = through(product, variance_TI)
        return spread + folded_variance(product) if product.layout == "expert" else spread

    def cached(self, x_GNd: Float64) -> Float64:
        """Return scale^2 / 12 with a scale for each head and position; in F16 2^-22 / 6 x^2."""
        variance_GNd: Float64 = np.square(x_GNd) * (F16_VARIANCE if self._kv == "fp16" else 0)
        if self._kv == "int8":
            scale_GN1 = np.abs(x_GNd).max(-1, keepdims=True) / INT8_LEVELS
            variance_GNd += UNIFORM_VARIANCE * np.square(scale_GN1)
        return variance_GNd


class Int4Noise:
    """Weights rounded to INT4."""

    kind: Kind = "int4"
    shared = True

    def rounding(self, value: Float64, operations: float) -> Float64:
        """Return zeros: this source is in the weights alone."""
        return np.zeros_like(value)

    def product(self, product: Product, variance_TI: Float64 | None) -> Float64:
        """Add the error of the weights; the router keeps its floats."""
        spread = through(product, variance_TI)
        if product.layout == "router":
            return spread
        squares_TI = np.square(product.x_TI) * UNIFORM_VARIANCE
        scales = np.square(product.weight.scales)
        if product.layout == "expert":
            return spread + np.repeat(squares_TI @ scales, GROUP_SIZE, axis=1)
        own_TO: Float64 = blocks(squares_TI).sum(-1) @ scales.T
        return spread + own_TO

    def cached(self, x_GNd: Float64) -> Float64:
        """Return zeros: this source is in the weights alone."""
        return np.zeros_like(x_GNd)


def squares_share(terms: Terms) -> Terms:
    """Return what the squared products contribute to the variance of a sum of `terms`."""
    return ROUNDING_VARIANCE * (1 + terms / (6 * LANES))


def sum_share(terms: Terms) -> Terms:
    """Return what the squared sum of `terms` products contributes to its own variance."""
    return ROUNDING_VARIANCE * (1 + terms / (3 * LANES))


def through(product: Product, variance_TI: Float64 | None) -> Float64:
    """Return the variance [T, O] that `variance_TI` becomes: sum_i W_oi^2 variance_i."""
    if variance_TI is None:
        return np.zeros_like(product.y_TO)
    squares = product.weight.squares
    result: Float64 = variance_TI @ (squares if product.layout == "expert" else squares.T)
    return result


def plus(own: Float64, other: Float64 | None) -> Float64:
    """Return the sum of two variances."""
    return own if other is None else own + other


def blocks(x_TI: Float64) -> Float64:
    """Return x as [T, B, 32]."""
    return x_TI.reshape(len(x_TI), -1, GROUP_SIZE)


def block_variance(x_TI: Float64) -> Float64:
    """Return the variance [T, I] of quantising x to int8 in blocks of 32."""
    scale_TB = np.abs(blocks(x_TI)).max(-1) / INT8_LEVELS
    result: Float64 = np.repeat(UNIFORM_VARIANCE * np.square(scale_TB), GROUP_SIZE, axis=1)
    return result


def folded_variance(product: Product) -> Float64:
    """Return the variance [T, O] of an expert's product with the scales in the activation."""
    scales_BIG = product.weight.scales.reshape(-1, GROUP_SIZE, product.weight.scales.shape[1])
    largest_BG = np.abs(scales_BIG).max(1)
    # Every input of a block and group errs alike: the variance is a product of two factors.
    weight_BGj = np.square(largest_BG)[..., None] * squared_integers(product.weight)
    block_TB = block_variance(product.x_TI)[:, ::GROUP_SIZE]
    result: Float64 = np.einsum("tb,bgj->tgj", block_TB, weight_BGj)
    return result.reshape(product.y_TO.shape)


def squared_integers(weight: Piece) -> Float64:
    """Return the sums [B, G, 32] over 32 inputs of an expert's squared integers."""
    squared = np.square(weight.scales)[..., None]
    grouped_IGj = weight.squares.reshape(*weight.scales.shape, GROUP_SIZE)
    integers_IGj = np.divide(
        grouped_IGj, squared, out=np.zeros_like(grouped_IGj), where=squared > 0
    )
    result: Float64 = integers_IGj.reshape(-1, GROUP_SIZE, *integers_IGj.shape[1:]).sum(1)
    return result
