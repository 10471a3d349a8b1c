"""The answer of the planner: the front, the chosen model, and the account of the choice."""

from __future__ import annotations

from dataclasses import dataclass

from mobilemoe.plan.search.candidate import Candidate
from mobilemoe.plan.search.constraints import Constraints


@dataclass(frozen=True)
class FunnelStep:
    """One rule: its name, the rule as a sentence and how many shapes it left."""

    step: str
    rule: str
    left: int


@dataclass(frozen=True)
class Reason:
    """Why one number of the chosen model is what it is; `name` is that of config.json."""

    name: str
    value: int | float | str
    why: str


@dataclass(frozen=True)
class Sensitivity:
    """One change of a constraint or of the law, and what would be chosen then.

    `chosen` is None if nothing is feasible any more; `changes` says whether another shape is
    chosen; `loss` is that of the new choice, None where the law does not reach.
    """

    change: str
    chosen: Candidate | None
    loss: float | None
    changes: bool


@dataclass(frozen=True)
class Plan:
    """What to train for `constraints`, and how sure that is.

    `front` is the Pareto front over loss, memory, decode speed and training cost of everything
    that was compared, lowest loss first; `ties` are its members whose loss differs from the lowest
    by less than the law's error, () without losses. `chosen` is one of the front or, where a
    convention decided among ties, may be beside it. `confidence` are sentences on what the choice
    rests on; `notes` say what it uses and leaves.
    """

    constraints: Constraints
    chosen: Candidate
    front: tuple[Candidate, ...]
    ties: tuple[Candidate, ...]
    funnel: tuple[FunnelStep, ...]
    reasons: tuple[Reason, ...]
    confidence: tuple[str, ...]
    sensitivity: tuple[Sensitivity, ...]
    notes: tuple[str, ...]
