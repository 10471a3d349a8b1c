"""From runs to the problem that is solved, and the check that the runs can answer it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import log

import numpy as np
from numpy.typing import NDArray

from mobilemoe.errors import MobileMoEError
from mobilemoe.plan.fit.coefficients import INDEX, LINEAR, Array, Form, make_layout
from mobilemoe.plan.fit.options import FitOptions
from mobilemoe.plan.fit.problem import Problem, Pull
from mobilemoe.plan.fit.runs import TrainingRun, scales
from mobilemoe.plan.law.experts import effective_experts

# Where starts are drawn, in units at the centre of the runs (ln N and ln D are 0 there).
START_RANGES: Mapping[str, tuple[float, float]] = {
    "alpha": (-1.0, -0.05),
    "beta": (-1.0, -0.05),
    "gamma": (-0.4, 0.4),
    "zeta": (-0.4, 0.4),
    "delta": (-1.0, 0.5),
    "omega": (-1.0, 0.5),
}
START_SHARES: Mapping[str, float] = {"a": 0.1, "b": 0.1, "c": 0.8}  # of the lowest loss
# Of the smallest to the largest singular value; arithmetic alone gives 1e-12 and below.
LEAST_RANK = 1e-6
LEAST_EFFECT = 1e-6  # of a coefficient on the losses, relative to that of the largest
RANK_TRIALS = 3


def make_problem(
    runs: Sequence[TrainingRun],
    groups: Sequence[int],
    form: Form,
    fixed: Mapping[str, float],
    shared: Sequence[str],
    options: FitOptions,
) -> Problem:
    """Return the problem of fitting `runs`, of which run i belongs to group `groups[i]`.

    Raises:
        MobileMoEError: if a coefficient is unknown, or the dense form is asked for several E.
    """
    equivalents = sorted({run.expert_equivalents for run in runs})
    if form == "dense" and len(equivalents) > 1:
        raise MobileMoEError(
            f"form dense: the runs have E of {', '.join(f'{e:g}' for e in equivalents)}; it has "
            "no term for E",
            hint="select the runs of one E, or fit the joint form",
        )
    active_R = np.log([run.active_params / options.unit_active for run in runs])
    tokens_R = np.log([run.tokens / options.unit_tokens for run in runs])
    # The dense form has no Ê: its coefficients are those at the one E there is.
    experts = [effective_experts(run.expert_equivalents) for run in runs]
    experts_R = np.log(experts) if form == "joint" else np.zeros(len(runs))
    centre = {"active": float(active_R.mean()), "tokens": float(tokens_R.mean())}
    towards = options.c_towards
    if towards is not None and "c" in fixed:
        raise MobileMoEError("c is both fixed and pulled", hint="leave out one of the two")
    return Problem(
        layout=make_layout(form, max(groups) + 1, fixed, shared, centre),
        active_R=active_R,
        tokens_R=tokens_R,
        experts_R=experts_R,
        loss_R=np.array([run.loss for run in runs]),
        group_R=np.array(groups, dtype=np.intp),
        huber=options.huber,
        pull=None if towards is None else Pull(towards, options.c_strength),
    )


def draw_starts(problem: Problem, count: int, rng: np.random.Generator) -> Array:
    """Return `count` random parameter vectors, sound ones for the centre of the runs."""
    groups, names = problem.layout.base_GC.shape
    centred_SGC = np.zeros((count, groups, names))
    for name, (low, high) in START_RANGES.items():
        centred_SGC[:, :, INDEX[name]] = rng.uniform(low, high, (count, 1))
    for name in LINEAR:
        centred_SGC[:, :, INDEX[name]] = log(START_SHARES[name] * problem.loss_R.min())
    n0, d0 = problem.active_R.mean(), problem.tokens_R.mean()
    K_SGC = centred_SGC.copy()
    for target, slope, centre in (
        ("a", "alpha", n0), ("delta", "gamma", n0), ("b", "beta", d0), ("omega", "zeta", d0)
    ):  # fmt: skip
        K_SGC[..., INDEX[target]] -= centre * centred_SGC[..., INDEX[slope]]
    return problem.layout.parameters(K_SGC)


def subset(problem: Problem, keep_R: NDArray[np.bool_ | np.intp]) -> Problem:
    """Return the problem of the runs that `keep_R` picks, with the same parameters."""
    return replace(
        problem,
        active_R=problem.active_R[keep_R],
        tokens_R=problem.tokens_R[keep_R],
        experts_R=problem.experts_R[keep_R],
        loss_R=problem.loss_R[keep_R],
        group_R=problem.group_R[keep_R],
    )


def undetermined(problem: Problem) -> tuple[str, ...]:
    """Return the coefficients that no amount of precision would get from these runs.

    At arbitrary coefficients the derivatives of the predictions must be independent. Sizes that
    differ by less than a tenth count as one: their differences say nothing about N.
    """
    rng = np.random.default_rng(0)
    flat = replace(
        problem, active_R=_flattened(problem.active_R), tokens_R=_flattened(problem.tokens_R)
    )
    worst: tuple[str, ...] = ()
    for q_P in draw_starts(problem, RANK_TRIALS, rng):
        J_RP = flat.jacobian(q_P[None])[1][0]
        if problem.pull is not None:
            J_RP = np.vstack([J_RP, np.eye(len(q_P))[problem.pulled_parameters()]])
        norms_P = np.linalg.norm(J_RP, axis=0)
        J_RP = J_RP / np.maximum(norms_P, LEAST_EFFECT * norms_P.max())  # rounding stays small
        _, sizes, directions = np.linalg.svd(
            np.vstack([J_RP, np.zeros((max(0, J_RP.shape[1] - J_RP.shape[0]), J_RP.shape[1]))])
        )
        null = directions[sizes < LEAST_RANK * sizes[0]]
        if not len(null):
            return ()
        involved = np.flatnonzero(np.abs(null).max(axis=0) > 1e-3)
        worst = tuple(dict.fromkeys(problem.layout.names_P[p] for p in involved))
    return worst


def _flattened(logs_R: Array) -> Array:
    flat_R = logs_R.copy()
    for mean, members in scales(list(np.exp(logs_R))):
        flat_R[list(members)] = log(mean)
    return flat_R


def check_determined(problem: Problem, runs: Sequence[TrainingRun], form: Form) -> None:
    """Refuse a fit that the runs cannot answer.

    Raises:
        MobileMoEError: naming the coefficients, what the runs vary, and the ways out.
    """
    names = undetermined(problem)
    if not names:
        return
    sizes = len(scales([run.active_params for run in runs]))
    budgets = len(scales([run.tokens for run in runs]))
    experts = len({run.expert_equivalents for run in runs})
    hint = "add runs, fix coefficients (fixed=, --fix c=1.973), or pull c (c_towards)"
    if form == "joint" and experts == 1:
        hint = "runs of one E cannot show what E does: ask for form dense, or add runs of other E"
    raise MobileMoEError(
        f"the runs do not determine {', '.join(names)}: they have {sizes} sizes, {budgets} token "
        f"budgets and {experts} values of E",
        hint=hint,
    )
