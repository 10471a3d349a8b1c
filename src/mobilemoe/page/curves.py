"""Curves made readable: thinned to what a picture can show, and smoothed. No drawing here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

LOSS_TICKS = (0.5, 0.7, 1, 1.5, 2, 3, 4, 5, 6, 8, 10, 12)  # of a logarithmic axis
Points = tuple[list[float], list[float]]


def smoothed(values: Sequence[float], half: int | None = None) -> list[float]:
    """Return the running mean over `half` points to each side, by default 1/50 of the curve."""
    half = len(values) // 50 if half is None else half
    windows = (values[max(0, i - half) : i + half + 1] for i in range(len(values)))
    return [sum(window) / len(window) for window in windows]


def thinned(x: Sequence[float], y: Sequence[float], most: int) -> Points:
    """Return at most `most` points: the means of equally many neighbours each.

    Points whose y is not finite are left out first, so that no mean is lost to one of them.
    """
    kept = [(a, b) for a, b in zip(x, y, strict=True) if math.isfinite(b)]
    count = min(most, len(kept))
    edges = [round(index * len(kept) / count) for index in range(count + 1)] if count else []
    groups = [kept[low:high] for low, high in pairwise(edges)]
    means = [[sum(values) / len(group) for values in zip(*group, strict=True)] for group in groups]
    return [mean[0] for mean in means], [mean[1] for mean in means]
