"""Whether two ways to train give the same loss curve, where neither is exact.

Sums in another order round otherwise. For some steps that stays in the last digits; then a token
falls to another of two nearly equal experts, and from there on the curves are two draws of one
run. How far apart such draws lie is measured, not chosen: by the plain loop beside itself, its
experts taken backwards, which is the same mathematics and as valid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

TOLERANCE = 0.02  # nats; what was allowed before the spread was measured, and always is
DRAWS = 2  # two differences of draws are alike within about this factor
AGREED = 5e-5  # four decimals
PLAIN, BACKWARDS, OURS = "plain", "plain_backwards", "ours"


def compare(losses: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Return how far ours is from the plain curve, how far that is from itself, and both curves.

    `same` holds if the largest difference of a step is within `TOLERANCE`, or within `DRAWS`
    times the spread; which of them held is reported apart. `mean_difference`, with its sign, is
    over the second half of the steps: a worse optimiser shows there.
    """
    ours, spread = (_differences(losses[PLAIN], losses[name]) for name in (OURS, BACKWARDS))
    largest, widest = _largest(ours), _largest(spread)
    return {
        "steps": len(ours),
        "largest_difference": largest,
        "spread": widest,
        "steps_to_four_decimals": {"ours": _agreed(ours), "spread": _agreed(spread)},
        "mean_difference": {"ours": _late_mean(ours), "spread": _late_mean(spread)},
        "tolerance": TOLERANCE,
        "within_tolerance": largest <= TOLERANCE,
        "within_spread": largest <= DRAWS * widest,
        "same": largest <= max(TOLERANCE, DRAWS * widest),
        "curves": {name: [round(v, 5) for v in curve] for name, curve in losses.items()},
    }


def _differences(plain: Sequence[float], other: Sequence[float]) -> list[float]:
    return [b - a for a, b in zip(plain, other, strict=True)]


def _largest(differences: Sequence[float]) -> float:
    return max(abs(d) for d in differences)


def _agreed(differences: Sequence[float]) -> int:
    """Return the number of steps before the first that differs in the fourth decimal."""
    apart = (i for i, d in enumerate(differences) if abs(d) >= AGREED)
    return next(apart, len(differences))


def _late_mean(differences: Sequence[float]) -> float:
    return fmean(differences[len(differences) // 2 :])
