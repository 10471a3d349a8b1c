"""A table of training runs: what a fit is made from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import geometric_mean
from typing import Any

from mobilemoe.errors import MobileMoEError


@dataclass(frozen=True)
class TrainingRun:
    """One finished run: what was trained, on how much, and the loss it reached.

    `active_params` N and `total_params` are numbers of parameters, `tokens` D of tokens, `loss`
    is in nats per token, `weight_bytes` of the INT4 weights. `expert_equivalents` is the law's
    E (1: dense), `granularity` its fine experts per equivalent. What a table does not tell is
    None; nothing may depend on it then.
    """

    active_params: float
    tokens: float
    expert_equivalents: float
    loss: float
    granularity: int | None = None
    shared_expert: bool | None = None
    seed: int | None = None
    total_params: float | None = None
    weight_bytes: float | None = None
    name: str = ""

    @property
    def configuration(self) -> tuple[float, float, float, int | None, bool | None]:
        """What runs that differ only in their seed have in common."""
        return (
            self.active_params,
            self.tokens,
            self.expert_equivalents,
            self.granularity,
            self.shared_expert,
        )


SELECTORS = ("expert_equivalents", "granularity", "shared_expert")


def select_runs(runs: Iterable[TrainingRun], **wanted: Any) -> tuple[TrainingRun, ...]:
    """Return the runs with these values of `SELECTORS`.

    Dense runs have no fine experts and belong to every granularity and either shared expert.

    Raises:
        MobileMoEError: if a name is no selector or nothing is left.
    """
    unknown = sorted(set(wanted) - set(SELECTORS))
    if unknown:
        raise MobileMoEError(
            f"cannot select by {', '.join(unknown)}", hint=f"allowed: {', '.join(SELECTORS)}"
        )
    left = tuple(run for run in runs if all(_has(run, *pair) for pair in wanted.items()))
    if not left:
        asked = ", ".join(f"{name} = {value}" for name, value in wanted.items())
        raise MobileMoEError(f"no run has {asked}", hint="select something that is in the table")
    return left


def _has(run: TrainingRun, name: str, value: Any) -> bool:
    is_free = name != "expert_equivalents" and run.expert_equivalents == 1
    return is_free or getattr(run, name) == value


def scales(values: Sequence[float], gap: float = 1.1) -> tuple[tuple[float, tuple[int, ...]], ...]:
    """Group values that differ by less than a factor `gap` from their neighbour.

    Models of equal size that differ in E differ a little in parameters (their routers do), and
    count as one scale. Returns the geometric mean and the indices of each, smallest first.
    """
    order = sorted(range(len(values)), key=values.__getitem__)
    groups: list[list[int]] = []
    for index in order:
        if groups and values[index] < gap * values[groups[-1][-1]]:
            groups[-1].append(index)
        else:
            groups.append([index])
    return tuple((_middle([values[i] for i in group]), tuple(group)) for group in groups)


def _middle(values: Sequence[float]) -> float:
    """Return the geometric mean, without rounding where all are equal."""
    return values[0] if values[0] == values[-1] else geometric_mean(values)
