"""From a table of runs to a law with uncertainty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, overload

from mobilemoe.errors import MobileMoEError
from mobilemoe.plan.fit.assemble import law_fit
from mobilemoe.plan.fit.coefficients import Form
from mobilemoe.plan.fit.engine import fit_groups_together
from mobilemoe.plan.fit.options import FitOptions
from mobilemoe.plan.fit.result import LawFit
from mobilemoe.plan.fit.runs import TrainingRun
from mobilemoe.plan.law.dense import DenseLaw
from mobilemoe.plan.law.moe import MoELaw

ARCHITECTURE = ("granularity", "shared_expert")


@overload
def fit_law(
    runs: Sequence[TrainingRun],
    *,
    form: Literal["joint"] = "joint",
    fixed: Mapping[str, float] | None = None,
    options: FitOptions | None = None,
    source: str = "",
) -> LawFit[MoELaw]: ...


@overload
def fit_law(
    runs: Sequence[TrainingRun],
    *,
    form: Literal["dense"],
    fixed: Mapping[str, float] | None = None,
    options: FitOptions | None = None,
    source: str = "",
) -> LawFit[DenseLaw]: ...


@overload
def fit_law(
    runs: Sequence[TrainingRun],
    *,
    form: Form,
    fixed: Mapping[str, float] | None = None,
    options: FitOptions | None = None,
    source: str = "",
) -> LawFit[MoELaw | DenseLaw]: ...


def fit_law(
    runs: Sequence[TrainingRun],
    *,
    form: Form = "joint",
    fixed: Mapping[str, float] | None = None,
    options: FitOptions | None = None,
    source: str = "",
) -> LawFit[MoELaw | DenseLaw]:
    """Fit the law of one architecture to `runs`.

    `form` joint is arXiv 2502.05172, with terms in E; dense is Chinchilla's, for runs of one E.
    `fixed` holds coefficients at values in the law's units. `source` goes into the law. The
    objective is the Huber loss of ln(loss) (arXiv 2203.15556, appendix D.3), minimised by
    Levenberg-Marquardt with variable projection of a, b and c from many starts; intervals are
    percentiles of a bootstrap over configurations; the scales are left out in turn.

    Raises:
        MobileMoEError: if the runs mix architectures or do not determine the coefficients, or a
            coefficient's name or value is wrong.
    """
    check_one_architecture(runs)
    options = options or FitOptions()
    solution = fit_groups_together(runs, [0] * len(runs), form, fixed or {}, (), options)
    return law_fit(solution, 0, runs, form, fixed or {}, options, source)


def check_one_architecture(runs: Sequence[TrainingRun], but: str = "") -> None:
    """Refuse MoE runs that differ in more than size, tokens, E and the attribute `but`.

    Raises:
        MobileMoEError: naming what differs, or if there are no runs.
    """
    if not runs:
        raise MobileMoEError("no runs to fit", hint="give a table of runs")
    for name in ARCHITECTURE:
        values = {getattr(run, name) for run in runs if run.expert_equivalents > 1}
        if len(values) > 1 and name != but:
            listed = ", ".join(sorted(map(str, values)))
            raise MobileMoEError(
                f"the runs mix {name} {listed}; one law is of one architecture",
                hint=f"select one (select_runs(runs, {name}=...), --only {name}=...), or fit per "
                f"{name} (fit_per, --by {name})",
            )
