"""One search: from the constraints to everything feasible that can be compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mobilemoe.plan.law import MoELaw
from mobilemoe.plan.search.candidate import Candidate
from mobilemoe.plan.search.candidates import Speeds, candidates
from mobilemoe.plan.search.choice import choose
from mobilemoe.plan.search.constraints import Constraints
from mobilemoe.plan.search.infeasible import infeasible
from mobilemoe.plan.search.limits import Limit, speed_limits, static_limits
from mobilemoe.plan.search.result import FunnelStep


@dataclass(frozen=True)
class Found:
    """What a search left: the models that are compared, the chosen one, and how it went.

    `unreached` counts feasible models that are not compared because the law does not reach them.
    """

    compared: tuple[Candidate, ...]
    chosen: Candidate
    funnel: tuple[FunnelStep, ...]
    unreached: int


def search(law: MoELaw, constraints: Constraints, speeds: Speeds) -> Found:
    """Return everything that meets `constraints` and the choice among it.

    Raises:
        InfeasibleError: if nothing does.
    """
    found, rules = candidates(law, constraints)
    funnel = list(rules)
    within = _keep(found, static_limits(constraints), funnel)
    reached = tuple(candidate for candidate in within if candidate.loss is not None)
    timed, unreached = speeds.timed(constraints, reached), len(within) - len(reached)
    limits = speed_limits(constraints)
    if not any(_meets(limits, candidate) for candidate in timed):
        timed, unreached = speeds.timed(constraints, within), 0
    elif unreached:
        funnel.append(FunnelStep("law", _reach_rule(law), len(reached)))
    if not any(_meets(limits, candidate) for candidate in timed):
        everything = timed or speeds.timed(constraints, found)
        raise infeasible(constraints, (*static_limits(constraints), *limits), everything)
    compared = _keep(timed, limits, funnel)
    chosen, last = choose(law, constraints, compared)
    return Found(compared, chosen, (*funnel, *last), unreached)


def _reach_rule(law: MoELaw) -> str:
    low, high = law.active_grid[0] / 1e9, law.active_grid[-1] / 1e9
    return f"within the law's reach: about {low:g} to {high:g} billion active parameters"


def _meets(limits: Sequence[Limit], candidate: Candidate) -> bool:
    return all(limit.met(candidate) for limit in limits)


def _keep(
    found: Sequence[Candidate], limits: Sequence[Limit], funnel: list[FunnelStep]
) -> tuple[Candidate, ...]:
    """Apply one limit after the other and note how many each leaves."""
    left = tuple(found)
    for limit in limits:
        left = tuple(candidate for candidate in left if limit.met(candidate))
        funnel.append(FunnelStep(limit.step, limit.rule, len(left)))
    return left
