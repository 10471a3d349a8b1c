"""What the law can be asked about a candidate, and at which point of its range it is asked.

The loss falls with active parameters and with tokens, so the edge of the fitted range bounds what
lies beyond it: a model trained on more tokens than were ever fitted is better than at the edge.
That comparison at the edge is honest; a number from outside the range is not, and comes only on
request and marked.
"""

from __future__ import annotations

from collections.abc import Sequence

from mobilemoe.plan.family import GRANULARITY, Shape
from mobilemoe.plan.law import MoELaw
from mobilemoe.plan.search.candidate import LossEstimate
from mobilemoe.plan.search.constraints import Constraints

# The sizes that were fitted are rounded: S, M and L have .27, .53 and .92 billion active
# parameters and stand for .3, .5 and .9 (arXiv 2605.27358). So this near counts as at the edge.
ROUNDING = 0.1


def training_tokens(law: MoELaw, constraints: Constraints, active_params: int) -> float:
    """Return the tokens a model is trained on: given, bought by the budget, or the law's most."""
    if constraints.tokens is not None:
        return constraints.tokens
    if constraints.train_flops is not None:
        return constraints.train_flops / (6 * active_params)
    return law.token_grid[-1]


def estimate(
    law: MoELaw, constraints: Constraints, shape: Shape, active_params: int
) -> LossEstimate | None:
    """Return the loss of a model, None where the law does not reach."""
    tokens = training_tokens(law, constraints, active_params)
    experts = shape.expert_equivalents
    outside = _outside(law, shape, active_params, tokens)
    asked_active, asked_tokens = float(active_params), tokens
    if not constraints.extrapolate:
        if unreachable(law, active_params, tokens, experts):
            return None
        asked_active = _inside(active_params, law.active_grid)
        asked_tokens = _inside(tokens, law.token_grid)
    predicted = law.predict(active_params=asked_active, tokens=asked_tokens, num_experts=experts)
    return LossEstimate(predicted.loss, outside, asked_active, asked_tokens, predicted.extrapolated)


def unreachable(
    law: MoELaw, active_params: float, tokens: float, experts: float
) -> tuple[str, ...]:
    """Name what is so far outside the fitted range that its edge says nothing, () if nothing is.

    Too many tokens are none of it: at the edge they are underestimated for every model alike.
    """
    low, high = law.active_grid[0] * (1 - ROUNDING), law.active_grid[-1] * (1 + ROUNDING)
    beyond = (
        ("active_params", not low <= active_params <= high),
        ("tokens", tokens < law.token_grid[0]),
        ("num_experts", not law.expert_grid[0] <= experts <= law.expert_grid[-1]),
    )
    return tuple(name for name, is_beyond in beyond if is_beyond)


def _outside(law: MoELaw, shape: Shape, active: float, tokens: float) -> tuple[str, ...]:
    """Name everything in which a model differs from what was fitted."""
    experts = shape.expert_equivalents
    differs = (
        ("active_params", not law.active_grid[0] <= active <= law.active_grid[-1]),
        ("tokens", not law.token_grid[0] <= tokens <= law.token_grid[-1]),
        ("num_experts", not law.expert_grid[0] <= experts <= law.expert_grid[-1]),
        ("granularity", not shape.is_dense and shape.granularity != GRANULARITY),
        ("shared_expert", not shape.is_dense and not shape.shared_expert),
    )
    return tuple(name for name, is_different in differs if is_different)


def _inside(value: float, grid: Sequence[float]) -> float:
    return float(min(max(value, grid[0]), grid[-1]))
