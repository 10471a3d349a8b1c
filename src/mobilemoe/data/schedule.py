"""Which row of an endless sequence belongs to which name: a schedule of one period that repeats."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from mobilemoe.errors import MobileMoEError

PERIOD = 4096  # shares are exact to one row in this many


class Schedule:
    """Rows shared out by weight.

    Raises:
        MobileMoEError: if a weight is not finite, negative, or positive and below 1/`PERIOD` of
            the sum, or if none is positive.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        _check(weights)
        self.names = tuple(sorted(name for name, weight in weights.items() if weight > 0))
        self._owner = row_schedule([weights[name] for name in self.names])
        self._ranks = _ranks(self._owner)
        self._per_period = np.bincount(self._owner, minlength=len(self.names))

    def locate(self, row: int) -> tuple[str, int]:
        """Return the name that row `row` belongs to, and how many of its rows came before."""
        turn, place = divmod(row, PERIOD)
        owner = int(self._owner[place])
        return self.names[owner], turn * int(self._per_period[owner]) + int(self._ranks[place])

    def drawn(self, rows: int) -> dict[str, int]:
        """Return how many of the first `rows` rows each name gives."""
        turns, rest = divmod(rows, PERIOD)
        last = np.bincount(self._owner[:rest], minlength=len(self.names))
        counts = turns * self._per_period + last
        return {name: int(count) for name, count in zip(self.names, counts, strict=True)}


def row_schedule(weights: list[float]) -> NDArray[np.int64]:
    """Return which weight each row of a period belongs to, evenly interleaved.

    Each row goes to the weight that is furthest behind its share.
    """
    shares = np.array(weights, np.float64) / sum(weights)
    given = np.zeros(len(weights))
    schedule = np.empty(PERIOD, np.int64)
    for row in range(PERIOD):
        schedule[row] = np.argmax(shares * (row + 1) - given)
        given[schedule[row]] += 1
    return schedule


def _ranks(schedule: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each row how many rows of its domain come before it in the period."""
    ranks = np.empty_like(schedule)
    for domain in np.unique(schedule):
        places = np.flatnonzero(schedule == domain)
        ranks[places] = np.arange(len(places))
    return ranks


def _check(weights: Mapping[str, float]) -> None:
    finite = all(0 <= weight < float("inf") for weight in weights.values())
    total = sum(weights.values())
    least = min((weight for weight in weights.values() if weight > 0), default=0.0)
    if not finite or total <= 0 or least < total / PERIOD:
        raise MobileMoEError(
            f"weights are {dict(weights)}; allowed: 0, or at least 1/{PERIOD} of their sum"
        )
