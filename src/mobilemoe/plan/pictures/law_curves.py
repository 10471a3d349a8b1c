"""The law as curves: loss over active parameters and over tokens, one curve for each E."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mobilemoe.plan.law import MoELaw

BEYOND = 3.0  # how far past the fitted range a curve is drawn, as a factor
STEPS = 41


@dataclass(frozen=True)
class LawCurve:
    """Predicted losses of one E along x; `inside` says where the law was fitted."""

    expert_equivalents: int
    x: tuple[float, ...]
    loss: tuple[float, ...]
    inside: tuple[bool, ...]


@dataclass(frozen=True)
class LawCurves:
    """Curves over active parameters at `tokens`, and over tokens at `active_params`."""

    over_active: tuple[LawCurve, ...]
    over_tokens: tuple[LawCurve, ...]
    active_params: float
    tokens: float
    active_range: tuple[float, float]
    token_range: tuple[float, float]
    rmse: float


def law_curves(
    law: MoELaw,
    experts: Sequence[int] | None = None,
    *,
    active_params: float | None = None,
    tokens: float | None = None,
) -> LawCurves:
    """Return the curves of `law`; what is held fixed is by default the middle of its sweep."""
    experts = tuple(experts or law.expert_grid)
    active = active_params or _middle(law.active_grid)
    seen = tokens or _middle(law.token_grid)
    sizes, budgets = _axis(law.active_grid), _axis(law.token_grid)
    return LawCurves(
        over_active=tuple(_curve(law, e, [(n, seen) for n in sizes], 0) for e in experts),
        over_tokens=tuple(_curve(law, e, [(active, d) for d in budgets], 1) for e in experts),
        active_params=active,
        tokens=seen,
        active_range=(law.active_grid[0], law.active_grid[-1]),
        token_range=(law.token_grid[0], law.token_grid[-1]),
        rmse=law.rmse,
    )


def _middle(grid: Sequence[float]) -> float:
    return grid[len(grid) // 2]


def _axis(grid: Sequence[float]) -> list[float]:
    """Return x values past both ends of `grid`, with both ends among them."""
    inside = np.geomspace(grid[0], grid[-1], STEPS // 2 + 1)
    before = np.geomspace(grid[0] / BEYOND, grid[0], STEPS // 4 + 1)[:-1]
    after = np.geomspace(grid[-1], grid[-1] * BEYOND, STEPS // 4 + 1)[1:]
    values = [float(x) for x in (*before, *inside, *after)]
    values[len(before)], values[len(before) + len(inside) - 1] = float(grid[0]), float(grid[-1])
    return values


def _curve(
    law: MoELaw, experts: int, points: Sequence[tuple[float, float]], along: int
) -> LawCurve:
    predicted = [
        law.predict(active_params=active, tokens=tokens, num_experts=experts)
        for active, tokens in points
    ]
    return LawCurve(
        expert_equivalents=experts,
        x=tuple(point[along] for point in points),
        loss=tuple(each.loss for each in predicted),
        inside=tuple(not each.outside for each in predicted),
    )
