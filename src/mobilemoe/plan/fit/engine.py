"""One fit from beginning to end, for one group of runs or for several that share coefficients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mobilemoe.plan.fit.coefficients import Array, Form
from mobilemoe.plan.fit.held_out import HeldOutErrors, leave_scales_out
from mobilemoe.plan.fit.options import FitOptions
from mobilemoe.plan.fit.problem import Problem
from mobilemoe.plan.fit.resample import draw_weights
from mobilemoe.plan.fit.runs import TrainingRun
from mobilemoe.plan.fit.setup import check_determined, draw_starts, make_problem
from mobilemoe.plan.fit.solve import solve, solve_best

DRAW_STARTS = 3  # of each bootstrap draw: the best fit of all runs and two random ones
SAME_MINIMUM = 1e-3  # relative difference of objectives


@dataclass(frozen=True)
class Solution:
    """The coefficients of each group: the fit's, and those of every bootstrap draw.

    `K_GC` and `draws_BGC` are plain values in the order of `NAMES`; `agreeing` of the starts
    reached the best minimum; `redrawn` resamples did not determine the coefficients.
    """

    problem: Problem
    K_GC: Array
    draws_BGC: Array
    predicted_R: Array
    objective: float
    agreeing: int
    redrawn: int
    held_out: tuple[HeldOutErrors, ...]


def fit_groups_together(
    runs: Sequence[TrainingRun],
    groups: Sequence[int],
    form: Form,
    fixed: Mapping[str, float],
    shared: Sequence[str],
    options: FitOptions,
) -> Solution:
    """Fit `runs`, bootstrap the coefficients, and hold scales out.

    Raises:
        MobileMoEError: if the runs do not determine the coefficients, or a name or a value is
            wrong.
    """
    problem = make_problem(runs, groups, form, fixed, shared, options)
    check_determined(problem, runs, form)
    rng = np.random.default_rng(options.seed)
    starts_SP = draw_starts(problem, options.starts, rng)
    best_P, value_S = solve_best(problem, starts_SP)
    draws_BP, redrawn = _bootstrap(problem, runs, best_P, options, rng)
    layout = problem.layout
    return Solution(
        problem=problem,
        K_GC=layout.plain(layout.coefficients(best_P[None]))[0],
        draws_BGC=layout.plain(layout.coefficients(draws_BP)),
        predicted_R=problem.predict(best_P[None])[0],
        objective=float(value_S.min()),
        agreeing=int((value_S <= value_S.min() * (1 + SAME_MINIMUM) + 1e-15).sum()),
        redrawn=redrawn,
        held_out=leave_scales_out(problem, runs, best_P, rng) if options.leave_out else (),
    )


def _bootstrap(
    problem: Problem,
    runs: Sequence[TrainingRun],
    best_P: Array,
    options: FitOptions,
    rng: np.random.Generator,
) -> tuple[Array, int]:
    """Return the parameters of every draw, and how many draws had to be repeated."""
    count = options.bootstrap
    if not count:
        return np.empty((0, len(best_P))), 0
    weights_BR, redrawn = draw_weights(problem, runs, count, rng)
    others_SP = draw_starts(problem, (DRAW_STARTS - 1) * count, rng)
    starts_SP = np.concatenate([np.tile(best_P, (count, 1)), others_SP])
    q_SP, value_S = solve(problem, starts_SP, np.tile(weights_BR, (DRAW_STARTS, 1)))
    winner_B = value_S.reshape(DRAW_STARTS, count).argmin(axis=0)
    return q_SP.reshape(DRAW_STARTS, count, -1)[winner_B, np.arange(count)], redrawn
