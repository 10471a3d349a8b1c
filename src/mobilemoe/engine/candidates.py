"""Which tokens may be drawn: top-k, top-p and min-p without sorting the vocabulary.

V vocabulary, C candidates, N kept of them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Ids = npt.NDArray[np.integer]

_BLOCK = 128  # values per block of which only the largest is looked at first
_DEPTHS = 2048  # how far down weights are told apart: 64 depths per factor of two
_DEPTH_SHIFT = 17  # bits of a float32 below its exponent and 6 bits of its fraction
_PIECE = 8192  # values looked at together
_ONE = int(np.float32(1).view(np.int32))


def candidates(
    logits_V: Float32, temperature: float, top_k: int, top_p: float, min_p: float
) -> tuple[Ids, Float32]:
    """Return the ids that stay, lowest first, and their weights: exp((logit - max) / temperature).

    Needs a finite largest logit and a temperature above 0, which is held to the normal numbers
    of float32. In this order: top-k keeps the k largest logits; of the probabilities of those,
    top-p keeps the likeliest, up to and with the one that brings their sum to p; min-p keeps
    those of at least `min_p` times the largest. Equals go to the lower id. The best token
    always stays.
    """
    ids_C: Ids = largest(logits_V, top_k) if top_k else np.arange(len(logits_V), dtype=np.int32)
    x_C = logits_V[ids_C] if top_k else logits_V
    weights_C = _weights(x_C, temperature)
    if top_p < 1.0:
        kept_N = _nucleus(x_C, weights_C, top_p)
        ids_C, weights_C = ids_C[kept_N], weights_C[kept_N]
    if min_p > 0.0:
        kept_C = weights_C >= min_p  # the largest weight is 1
        ids_C, weights_C = ids_C[kept_C], weights_C[kept_C]
    return ids_C, weights_C


def largest(x_C: Float32, count: int) -> Int64:
    """Return the positions of the `count` largest values, lowest first; equals: the lower one."""
    if count >= len(x_C):
        return np.arange(len(x_C))
    near = np.flatnonzero(x_C >= _floor(x_C, count))
    x_N = x_C[near]
    smallest = np.partition(x_N, len(near) - count)[len(near) - count]
    near, x_N = near[x_N >= smallest], x_N[x_N >= smallest]
    surplus = len(near) - count
    return np.delete(near, np.flatnonzero(x_N == smallest)[-surplus:]) if surplus else near


def _floor(x_C: Float32, count: int) -> float:
    """Return a value that at least `count` of `x_C` reach, cheaply: of the largest per block."""
    blocks = len(x_C) // _BLOCK
    if count > blocks:
        return -np.inf
    largest_B = x_C[: blocks * _BLOCK].reshape(_BLOCK, blocks).max(axis=0)
    return float(np.partition(largest_B, blocks - count)[blocks - count])


def _weights(x_C: Float32, temperature: float) -> Float32:
    limits = np.finfo(np.float32)
    divisor = np.float32(min(max(temperature, float(limits.tiny)), float(limits.max)))
    with np.errstate(over="ignore"):  # a tiny temperature makes -inf: weight 0
        scaled_C = x_C - x_C.max()
        scaled_C /= divisor
    weights_C: Float32 = np.exp(scaled_C, out=scaled_C)
    return weights_C


def _nucleus(x_C: Float32, weights_C: Float32, top_p: float) -> Int64:
    """Return the positions of the likeliest candidates that reach `top_p` of all weights.

    A histogram of the weights, whose bits are in the order of their values, finds the few among
    which the sum reaches it; only these are sorted.
    """
    depths_C = _ONE - weights_C.view(np.int32)
    depths_C >>= _DEPTH_SHIFT
    np.minimum(depths_C, _DEPTHS - 1, out=depths_C)
    sums = np.cumsum(_histogram(depths_C, weights_C))
    total = float(sums[-1])
    last = int(np.count_nonzero(sums / total < top_p))
    sum_above = float(sums[last - 1]) if last else 0.0
    there_N = np.flatnonzero(depths_C == last)
    kept = _needed(weights_C[there_N], sum_above, top_p, total)
    kept_C = depths_C < last
    kept_C[there_N[largest(x_C[there_N], kept)]] = True
    return np.flatnonzero(kept_C)


def _histogram(depths_C: Int32, weights_C: Float32) -> Float64:
    """Return the sum of the weights at each depth; in pieces, for bincount copies what it gets."""
    sums = np.zeros(_DEPTHS)
    for first in range(0, len(depths_C), _PIECE):
        piece = slice(first, first + _PIECE)
        sums += np.bincount(depths_C[piece], weights_C[piece], _DEPTHS)
    return sums


def _needed(weights_N: Float32, sum_above: float, top_p: float, total: float) -> int:
    """Return how many, largest first, bring `sum_above` to `top_p` of `total`; at least one."""
    sums_N = sum_above + np.cumsum(np.sort(weights_N)[::-1], dtype=np.float64)
    return 1 + int(np.count_nonzero(sums_N[:-1] / total < top_p))
