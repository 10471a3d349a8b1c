"""From the arrays of a solution to laws, intervals and warnings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mobilemoe.plan.fit.coefficients import INDEX, Array, Form, names_of
from mobilemoe.plan.fit.engine import Solution
from mobilemoe.plan.fit.options import FitOptions
from mobilemoe.plan.fit.resample import configurations
from mobilemoe.plan.fit.result import Coefficient, Interval, LawFit, interval_of
from mobilemoe.plan.fit.runs import TrainingRun, scales
from mobilemoe.plan.fit.warnings import warnings_of
from mobilemoe.plan.law.dense import DenseLaw
from mobilemoe.plan.law.moe import MoELaw


def law_fit(
    solution: Solution,
    group: int,
    runs: Sequence[TrainingRun],
    form: Form,
    fixed: Mapping[str, float],
    options: FitOptions,
    source: str,
) -> LawFit[MoELaw | DenseLaw]:
    """Return the fit of one group of the solution of all `runs`."""
    members = [i for i, g in enumerate(solution.problem.group_R) if g == group]
    own = [runs[i] for i in members]
    residuals = [float(solution.predicted_R[i]) - runs[i].loss for i in members]
    rmse = float(np.sqrt(np.mean(np.square(residuals))))
    coefficients = _coefficients(solution, group, form, fixed, options.confidence)
    held_out = [scale.of(set(members)) for scale in solution.held_out]
    noise = seed_noise(own)
    laws = [
        _law(K_C, form, own, rmse, options, source)
        for K_C in (solution.K_GC[group], *solution.draws_BGC[:, group])
    ]
    return LawFit(
        law=laws[0],
        coefficients=coefficients,
        residuals=tuple(residuals),
        seed_noise=noise,
        objective=solution.objective,
        confidence=options.confidence,
        draws=tuple(laws[1:]),
        held_out=tuple(error for error in held_out if error is not None),
        warnings=warnings_of(solution, coefficients, own, rmse, noise, options),
    )


def _coefficients(
    solution: Solution, group: int, form: Form, fixed: Mapping[str, float], confidence: float
) -> tuple[Coefficient, ...]:
    found = []
    for name in names_of(form):
        draws = list(solution.draws_BGC[:, group, INDEX[name]])
        interval: Interval | None = None
        if draws and name not in fixed:
            interval = interval_of(draws, confidence)
        value = fixed.get(name, float(solution.K_GC[group, INDEX[name]]))
        found.append(Coefficient(name, value, interval, name in fixed))
    return tuple(found)


def _law(
    K_C: Array,
    form: Form,
    runs: Sequence[TrainingRun],
    rmse: float,
    options: FitOptions,
    source: str,
) -> MoELaw | DenseLaw:
    values = {name: float(K_C[INDEX[name]]) for name in names_of(form)}
    experts = sorted({run.expert_equivalents for run in runs})
    common = {
        "rmse": rmse,
        "active_grid": _grid([run.active_params for run in runs]),
        "token_grid": _grid([run.tokens for run in runs]),
        "expert_grid": tuple(int(e) if e == int(e) else e for e in experts),
        "unit_active": options.unit_active,
        "unit_tokens": options.unit_tokens,
        "source": source,
        "confidence": f"own fit of {len(runs)} runs of {len(set(configurations(runs)))} "
        "configurations",
    }
    kind = MoELaw if form == "joint" else DenseLaw
    extra = {} if form == "joint" else {"num_experts": experts[0]}
    arguments: dict[str, object] = {**values, **common, **extra}
    return kind(**arguments)  # type: ignore[arg-type]  # checked by the tests of both forms


def _grid(values: Sequence[float]) -> tuple[float, ...]:
    """Return the sweep's scales; its ends are the exact ones, which bound the fitted range."""
    middle = [scale for scale, _ in scales(values)]
    if len(middle) == 1:
        return tuple(sorted({min(values), max(values)}))
    return (min(values), *middle[1:-1], max(values))


def seed_noise(runs: Sequence[TrainingRun]) -> float | None:
    """Return the pooled standard deviation of the loss between seeds of one configuration."""
    losses: dict[int, list[float]] = {}
    for number, run in zip(configurations(runs), runs, strict=True):
        losses.setdefault(number, []).append(run.loss)
    squares = sum(len(same) * float(np.var(same)) for same in losses.values())
    freedom = sum(len(same) - 1 for same in losses.values())
    return float(np.sqrt(squares / freedom)) if freedom else None
