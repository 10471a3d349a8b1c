"""The order of a stream's rows in one epoch: a permutation that needs no memory when it is large.

Up to `IN_MEMORY` rows it is the order of hashes. Above, a Feistel network permutes the numbers
below a power of four, and numbers that are no row are permuted again until one is ("cycle
walking", Black and Rogaway, CT-RSA 2002): still a permutation, row by row.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

IN_MEMORY = 2**22  # rows; 32 MB of numbers
ROUNDS = 6

_MASK = 2**64 - 1
_STEP = 0x9E3779B97F4A7C15
_MIXING = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))  # SplitMix64's finaliser


class Order(Protocol):
    """A permutation of the numbers below a size."""

    def __getitem__(self, rank: int, /) -> int | np.int64: ...


def shuffled(rows: int, name: str, epoch: int, seed: int) -> Order:
    """Return the permutation of one stream's rows in one epoch."""
    if rows <= IN_MEMORY:
        return epoch_order(rows, name, epoch, seed)
    return FeistelOrder(rows, name, epoch, seed)


def epoch_order(rows: int, name: str, epoch: int, seed: int) -> NDArray[np.int64]:
    """Return the permutation as an array.

    Sorted hashes instead of a library's shuffle: the order is the same in every version.
    """
    x = np.arange(rows, dtype=np.uint64) * np.uint64(_STEP)
    x += np.uint64(_key(name, epoch, seed))
    for shift, factor in _MIXING:
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    return np.argsort(x ^ (x >> np.uint64(31)), kind="stable")


class FeistelOrder:
    """The permutation as a function of the rank; any size, constant memory."""

    def __init__(self, rows: int, name: str, epoch: int, seed: int) -> None:
        self._rows = rows
        self._half_bits = max(1, ((rows - 1).bit_length() + 1) // 2)
        self._key = _key(name, epoch, seed)

    def __getitem__(self, rank: int, /) -> int:
        """Return the row that comes at `rank`."""
        if not 0 <= rank < self._rows:
            raise IndexError(rank)
        row = self._permuted(rank)
        while row >= self._rows:  # fewer than four numbers per row, so 4 rounds on average at most
            row = self._permuted(row)
        return row

    def _permuted(self, number: int) -> int:
        mask = (1 << self._half_bits) - 1
        left, right = number >> self._half_bits, number & mask
        for turn in range(1, ROUNDS + 1):
            mixed = _mixed((right + 1) * _STEP + self._key * turn + turn)
            left, right = right, left ^ (mixed & mask)
        return left << self._half_bits | right


def _key(name: str, epoch: int, seed: int) -> int:
    return int.from_bytes(sha256(f"{seed} {name} {epoch}".encode()).digest()[:8], "big")


def _mixed(x: int) -> int:
    x &= _MASK
    for shift, factor in _MIXING:
        x = (x ^ (x >> shift)) * factor & _MASK
    return x ^ (x >> 31)
