"""How well the law predicts a size, a token budget or an E that it has not seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mobilemoe.plan.fit.coefficients import Array
from mobilemoe.plan.fit.problem import Problem
from mobilemoe.plan.fit.runs import TrainingRun, scales
from mobilemoe.plan.fit.setup import draw_starts, subset, undetermined
from mobilemoe.plan.fit.solve import solve_best

Axis = Literal["active_params", "tokens", "expert_equivalents"]
AXES: tuple[Axis, ...] = ("active_params", "tokens", "expert_equivalents")
REFIT_STARTS = 8


@dataclass(frozen=True)
class HeldOut:
    """The error on the runs at one scale when the law is fitted on all the others.

    `rmse` and `bias` (predicted minus measured) are in nats per token. `at_edge` tells that the
    scale is the smallest or the largest, so that this was extrapolation.
    """

    axis: Axis
    value: float
    runs: int
    rmse: float
    bias: float
    at_edge: bool


@dataclass(frozen=True)
class HeldOutErrors:
    """One scale left out: predicted minus measured for each of its runs, by index of the run."""

    axis: Axis
    value: float
    at_edge: bool
    errors: tuple[tuple[int, float], ...]

    def of(self, members: set[int]) -> HeldOut | None:
        """Return the error on those runs of the scale that are in `members`."""
        errors = np.array([error for index, error in self.errors if index in members])
        if not len(errors):
            return None
        rmse, bias = float(np.sqrt((errors**2).mean())), float(errors.mean())
        return HeldOut(self.axis, self.value, len(errors), rmse, bias, self.at_edge)


def leave_scales_out(
    problem: Problem, runs: Sequence[TrainingRun], best_P: Array, rng: np.random.Generator
) -> tuple[HeldOutErrors, ...]:
    """Refit without each scale of each axis; scales that cannot be spared are left away."""
    found = []
    for axis in AXES:
        levels = scales([getattr(run, axis) for run in runs])
        for place, (value, members) in enumerate(levels):
            keep_R = np.ones(len(runs), dtype=bool)
            keep_R[list(members)] = False
            if len(levels) == 1 or undetermined(rest := subset(problem, keep_R)):
                continue
            starts_SP = np.vstack([best_P[None], draw_starts(rest, REFIT_STARTS - 1, rng)])
            rest_P, _ = solve_best(rest, starts_SP)
            predicted_R = problem.predict(rest_P[None])[0]
            errors = tuple((i, float(predicted_R[i] - problem.loss_R[i])) for i in sorted(members))
            found.append(HeldOutErrors(axis, value, place in (0, len(levels) - 1), errors))
    return tuple(found)
