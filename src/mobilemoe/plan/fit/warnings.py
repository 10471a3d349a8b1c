"""What not to rely on in a fit, in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from math import log

from mobilemoe.plan.fit.engine import Solution
from mobilemoe.plan.fit.options import FitOptions
from mobilemoe.plan.fit.resample import configurations
from mobilemoe.plan.fit.result import Coefficient
from mobilemoe.plan.fit.runs import TrainingRun
from mobilemoe.plan.law.experts import effective_experts

FLOOR_SHARE = 0.01  # c below this share of the lowest loss: the runs show no floor
POINTS_PER_COEFFICIENT = 2
FEW_STARTS = 0.05  # of the starts at the best minimum
MANY_REDRAWN = 0.1  # of the draws
FORM_MISFIT = 2.0  # residuals over seed noise
WIDE = 1.0  # half an interval over the coefficient


def warnings_of(
    solution: Solution,
    coefficients: Sequence[Coefficient],
    runs: Sequence[TrainingRun],
    rmse: float,
    noise: float | None,
    options: FitOptions,
) -> tuple[str, ...]:
    """Return every warning that applies to one group of a solution."""
    found = [
        _few_points(solution, runs),
        _wide(coefficients, options.confidence),
        _no_floor(coefficients, runs),
        *_wrong_way(coefficients, runs),
        _misfit(rmse, noise),
        _lonely_minimum(solution, options),
        _redrawn(solution, options),
    ]
    return tuple(sentence for sentence in found if sentence)


def _few_points(solution: Solution, runs: Sequence[TrainingRun]) -> str:
    points = len(set(configurations(runs)))
    free = sum(group in (None, 0) for group in solution.problem.layout.groups_P)
    if points >= POINTS_PER_COEFFICIENT * free:
        return ""
    return f"{points} configurations for {free} free coefficients: the fit is hardly tested"


def _wide(coefficients: Sequence[Coefficient], confidence: float) -> str:
    wide = [
        c.name
        for c in coefficients
        if c.interval is not None and c.interval.high - c.interval.low > 2 * WIDE * abs(c.value)
    ]
    if not wide:
        return ""
    return (
        f"the {confidence:.0%} interval of {', '.join(wide)} is more than twice as wide as the "
        "value is large: read the predictions with their intervals, not these coefficients"
    )


def _no_floor(coefficients: Sequence[Coefficient], runs: Sequence[TrainingRun]) -> str:
    c = next(c for c in coefficients if c.name == "c")
    if c.fixed or c.value > FLOOR_SHARE * min(run.loss for run in runs):
        return ""
    return "c went to 0: the runs show no floor of the loss; fix it or pull it (c_towards)"


def _wrong_way(coefficients: Sequence[Coefficient], runs: Sequence[TrainingRun]) -> list[str]:
    """Say where the law would have more parameters or more tokens hurt."""
    values = {c.name: c.value for c in coefficients}
    found = []
    for name, slope, what in (("alpha", "gamma", "parameters"), ("beta", "zeta", "tokens")):
        bad = [
            f"{experts:g}"
            for experts in sorted({run.expert_equivalents for run in runs})
            if values[name] + values.get(slope, 0.0) * log(effective_experts(experts)) > 0
        ]
        if bad:
            found.append(f"at E = {', '.join(bad)} the fit has more {what} raise the loss")
    return found


def _misfit(rmse: float, noise: float | None) -> str:
    if not noise or rmse <= FORM_MISFIT * noise:
        return ""
    return (
        f"the residuals ({rmse:.4f}) are {rmse / noise:.1f} times the noise between seeds "
        f"({noise:.4f}): the form of the law does not describe these runs fully"
    )


def _lonely_minimum(solution: Solution, options: FitOptions) -> str:
    if solution.agreeing > FEW_STARTS * options.starts:
        return ""
    return f"only {solution.agreeing} of {options.starts} starts found the best fit: use more"


def _redrawn(solution: Solution, options: FitOptions) -> str:
    if solution.redrawn <= MANY_REDRAWN * options.bootstrap:
        return ""
    return (
        f"{solution.redrawn} resamples did not determine every coefficient and were drawn again: "
        "the intervals are too narrow"
    )
