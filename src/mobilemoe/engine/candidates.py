"""Which tokens may be drawn: top-k, top-p and min-p without sorting the vocabulary.

V vocabulary, C candidates, N kept of them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

_BLOCK = 128  # values per block of which only the largest is looked at first
_FIRST = 1024  # most likely candidates in which the end of a nucleus is sought first


def candidates(
    logits_V: Float32, temperature: float, top_k: int, top_p: float, min_p: float
) -> tuple[Int64, Float64]:
    """Return the ids that stay, lowest first, and their weights: exp((logit - max) / temperature).

    Needs a temperature above 0 and a finite largest logit. In this order: top-k keeps the k
    largest logits; of the probabilities of those, top-p keeps the likeliest, up to and with the
    one that brings their sum to p; min-p keeps those of at least `min_p` times the largest.
    Equals go to the lower id. The best token always stays.
    """
    ids_C = largest(logits_V, top_k) if top_k else np.arange(len(logits_V))
    x_C = logits_V[ids_C] if top_k else logits_V
    weights_C = _weights(x_C, temperature)
    if top_p < 1.0:
        kept_N = _nucleus(x_C, weights_C, top_p)
        ids_C, weights_C = ids_C[kept_N], weights_C[kept_N]
    if min_p > 0.0:
        kept_C = weights_C >= min_p  # the largest weight is 1
        ids_C, weights_C = ids_C[kept_C], weights_C[kept_C]
    return ids_C, weights_C


def largest(x_C: npt.NDArray[np.floating], count: int) -> Int64:
    """Return the positions of the `count` largest values, lowest first; equals: the lower one."""
    if count >= len(x_C):
        return np.arange(len(x_C))
    near = np.flatnonzero(x_C >= _floor(x_C, count))
    x_N = x_C[near]
    smallest = np.partition(x_N, len(near) - count)[len(near) - count]
    near, x_N = near[x_N >= smallest], x_N[x_N >= smallest]
    surplus = len(near) - count
    return np.delete(near, np.flatnonzero(x_N == smallest)[-surplus:]) if surplus else near


def _floor(x_C: npt.NDArray[np.floating], count: int) -> float:
    """Return a value that at least `count` of `x_C` reach, cheaply: of the largest per block."""
    blocks = len(x_C) // _BLOCK
    if count > blocks:
        return -np.inf
    largest_B = x_C[: blocks * _BLOCK].reshape(_BLOCK, blocks).max(axis=0)
    return float(np.partition(largest_B, blocks - count)[blocks - count])


def _weights(x_C: Float32, temperature: float) -> Float64:
    x = x_C.astype(np.float64)
    x -= x.max()
    with np.errstate(over="ignore"):  # a tiny temperature makes -inf: weight 0
        x /= max(temperature, float(np.finfo(np.float64).tiny))
    return np.exp(x, out=x)


def _nucleus(x_C: Float32, weights_C: Float64, top_p: float) -> Int64:
    """Return the positions of the likeliest candidates that reach `top_p` of all weights."""
    total = weights_C.sum()
    for size in (_FIRST, len(x_C)):
        kept = _reached(weights_C[largest(x_C, size)], total, top_p)
        if kept < size:
            break
    return largest(x_C, kept)


def _reached(weights_N: Float64, total: float, top_p: float) -> int:
    """Return how many of the largest weights are needed for `top_p` of `total`; at least one."""
    sums_N = np.cumsum(np.sort(weights_N)[::-1])
    return 1 + int(np.count_nonzero(sums_N[:-1] / total < top_p))
