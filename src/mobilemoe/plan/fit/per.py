"""One law per granularity or per shared expert, with coefficients of their own or in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mobilemoe.errors import MobileMoEError
from mobilemoe.plan.fit.assemble import law_fit
from mobilemoe.plan.fit.coefficients import INDEX, Form, names_of
from mobilemoe.plan.fit.engine import Solution, fit_groups_together
from mobilemoe.plan.fit.fit import ARCHITECTURE, check_one_architecture
from mobilemoe.plan.fit.options import FitOptions
from mobilemoe.plan.fit.result import Interval, LawFit, interval_of
from mobilemoe.plan.fit.runs import TrainingRun
from mobilemoe.plan.law.dense import DenseLaw
from mobilemoe.plan.law.moe import MoELaw
from mobilemoe.plan.law.table import Architecture, LawTable

By = Literal["granularity", "shared_expert"]


@dataclass(frozen=True)
class FitPer:
    """The fits of several architectures, by the value of the attribute `by`.

    `shared` coefficients are equal in all of them and were fitted on all runs.
    """

    by: By
    shared: tuple[str, ...]
    values: tuple[int, ...]
    fits: tuple[LawFit[MoELaw | DenseLaw], ...]
    table: LawTable[MoELaw | DenseLaw] | None
    solution: Solution

    def ratio(self, name: str, value: int, to: int) -> tuple[float, Interval | None]:
        """Return coefficient `name` of one architecture over that of another, with its interval.

        The draws are paired, so what all fits have in common cancels.

        Raises:
            MobileMoEError: if the coefficient or one of the values is not in these fits.
        """
        for asked in (value, to):
            if asked not in self.values:
                allowed = ", ".join(map(str, self.values))
                raise MobileMoEError(
                    f"{self.by} is {asked!r}; fitted: {allowed}", hint="ask for one of these"
                )
        known = {coefficient.name for coefficient in self.fits[0].coefficients}
        if name not in known:
            raise MobileMoEError(
                f"no coefficient {name!r}", hint=f"there are {', '.join(sorted(known))}"
            )
        one, other = self.values.index(value), self.values.index(to)
        K_GC, draws_BGC = self.solution.K_GC, self.solution.draws_BGC
        ratio = float(K_GC[one, INDEX[name]] / K_GC[other, INDEX[name]])
        if not len(draws_BGC):
            return ratio, None
        draws = draws_BGC[:, one, INDEX[name]] / draws_BGC[:, other, INDEX[name]]
        return ratio, interval_of(list(np.asarray(draws)), self.fits[0].confidence)


def fit_per(
    runs: Sequence[TrainingRun],
    by: By,
    *,
    form: Form = "dense",
    shared: Sequence[str] = (),
    fixed: Mapping[str, float] | None = None,
    options: FitOptions | None = None,
    source: str = "",
) -> FitPer:
    """Fit one law for each value of `by` in `runs`; `shared` coefficients are in common.

    The paper fits each granularity by itself, c pulled towards that of the joint fit
    (`FitOptions.c_towards`), and compares A with and without a shared expert (arXiv 2605.27358).
    Dense runs are left out: they have neither fine experts nor a shared one.

    Raises:
        MobileMoEError: if `by` or a coefficient's name is wrong, a run does not tell its value
            of `by`, the runs differ in another respect, or do not determine the coefficients.
    """
    if by not in ARCHITECTURE:
        raise MobileMoEError(f"by is {by!r}", hint=f"allowed: {', '.join(ARCHITECTURE)}")
    if set(names_of(form)) <= set(shared) | set(fixed or {}):
        raise MobileMoEError("every coefficient is shared or fixed", hint="leave one to differ")
    sparse = [run for run in runs if run.expert_equivalents > 1]
    check_one_architecture(sparse, but=by)
    values = _values(sparse, by)
    groups = [values.index(int(getattr(run, by))) for run in sparse]
    options = options or FitOptions()
    solution = fit_groups_together(sparse, groups, form, fixed or {}, shared, options)
    fits = tuple(
        law_fit(solution, group, sparse, form, fixed or {}, options, source)
        for group in range(len(values))
    )
    return FitPer(by, tuple(shared), values, fits, _table(sparse, by, values, fits), solution)


def _values(runs: Sequence[TrainingRun], by: By) -> tuple[int, ...]:
    """Return the values of `by`, in order; True and False are 1 and 0."""
    if any(getattr(run, by) is None for run in runs):
        raise MobileMoEError(f"a run does not tell its {by}", hint=f"add the column {by}")
    values = tuple(sorted({int(getattr(run, by)) for run in runs}))
    if len(values) < 2:
        raise MobileMoEError(
            f"all runs have {by} {', '.join(map(str, values))}", hint="fit_law fits one law"
        )
    return values


def _table(
    runs: Sequence[TrainingRun],
    by: By,
    values: Sequence[int],
    fits: Sequence[LawFit[MoELaw | DenseLaw]],
) -> LawTable[MoELaw | DenseLaw] | None:
    """Return the laws by architecture, if the runs tell all of it."""
    other = ARCHITECTURE[1 - ARCHITECTURE.index(by)]
    rest = getattr(runs[0], other)
    if rest is None:
        return None
    architectures = [
        Architecture(value, rest) if by == "granularity" else Architecture(rest, bool(value))
        for value in values
    ]
    return LawTable(tuple(zip(architectures, (fit.law for fit in fits), strict=True)))
