"""What a sweep's figures are drawn from: points with intervals, series, panels; crossovers.

Plain values and nothing of how they were measured or fitted, so that any sweep can be shown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from mobilemoe.errors import MobileMoEError


@dataclass(frozen=True)
class Point:
    """A value `y` at `x`, with its interval where one is known.

    Raises:
        MobileMoEError: if a number is not finite, or `y` is outside its interval.
    """

    x: float
    y: float
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        known = [v for v in (self.x, self.y, self.low, self.high) if v is not None]
        low, high = self.bounds
        if not all(math.isfinite(v) for v in known) or not low <= self.y <= high:
            raise MobileMoEError(
                f"point is {(self.x, self.y, self.low, self.high)!r}; allowed: finite numbers "
                "with low <= y <= high"
            )

    @property
    def bounds(self) -> tuple[float, float]:
        """The interval; `y` itself where an end is not known."""
        low = self.y if self.low is None else self.low
        return low, self.y if self.high is None else self.high


@dataclass(frozen=True)
class Series:
    """Points of one expert count; `predicted` ones are drawn as a dashed line without dots."""

    label: str
    points: tuple[Point, ...]
    experts: float = 1
    predicted: bool = False

    @property
    def in_order(self) -> tuple[Point, ...]:
        """The points by x."""
        return tuple(sorted(self.points, key=lambda point: point.x))


@dataclass(frozen=True)
class Panel:
    """Series that share axes, under a title such as the training FLOPs they have in common."""

    title: str
    series: tuple[Series, ...]


def crossovers(first: Series, second: Series) -> tuple[Point, ...]:
    """Return where the two curves meet, each taken as straight between its points over log x.

    Curves that touch without crossing do not count.

    Raises:
        MobileMoEError: if an x is not positive.
    """
    for series in (first, second):
        if any(point.x <= 0 for point in series.points):
            raise MobileMoEError(f"series {series.label}: x must be positive, it is a size")
    low = max(min((p.x for p in s.points), default=math.inf) for s in (first, second))
    high = min(max((p.x for p in s.points), default=-math.inf) for s in (first, second))
    every = {p.x for s in (first, second) for p in s.points}
    xs = sorted(x for x in every if low <= x <= high)
    gaps = [(x, _at(first, x) - _at(second, x)) for x in xs]
    signed = [(x, gap) for x, gap in gaps if gap != 0]
    found = []
    for (a, before), (b, after) in pairwise(signed):
        if before * after < 0:
            x = _zero(a, before, b, after, [x for x, gap in gaps if gap == 0 and a < x < b])
            found.append(Point(x, _at(first, x)))
    return tuple(found)


def _zero(a: float, before: float, b: float, after: float, exact: Sequence[float]) -> float:
    if exact:
        return exact[0]
    share = before / (before - after)
    return math.exp(math.log(a) + share * (math.log(b) - math.log(a)))


def _at(series: Series, x: float) -> float:
    """Return y at `x`, between points over log x; `x` is inside the series."""
    points = series.in_order
    for left, right in pairwise(points):
        if left.x <= x <= right.x and right.x > left.x:
            share = math.log(x / left.x) / math.log(right.x / left.x)
            return left.y + share * (right.y - left.y)
    return points[0].y


def heldout_error(points: Sequence[Point]) -> tuple[float, float]:
    """Return the mean of |predicted - measured| and its largest value (x predicted, y measured).

    Raises:
        MobileMoEError: if there is no point.
    """
    if not points:
        raise MobileMoEError("heldout: no points; allowed: at least one")
    errors = [abs(point.x - point.y) for point in points]
    return sum(errors) / len(errors), max(errors)
