"""Constraints that nothing meets: which one binds, and the nearest that something would meet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

from mobilemoe.errors import MobileMoEError
from mobilemoe.plan.search.candidate import Candidate
from mobilemoe.plan.search.constraints import Constraints
from mobilemoe.plan.search.limits import Limit

LARGE = 1e15  # of training FLOPs six digits are read, not twenty


@dataclass(frozen=True)
class Nearest:
    """The value of one constraint that would do with all others kept, and the model it gives."""

    constraint: str
    asked: float
    needed: float
    candidate: Candidate

    def __str__(self) -> str:
        return f"{self.constraint} {_number(self.needed)} instead of {_number(self.asked)}"


class InfeasibleError(MobileMoEError):
    """No model meets all constraints.

    `nearest` has one entry per constraint that, changed alone, would be enough: the binding
    ones. If it is empty, several bind together, and `together` says what the nearest model needs
    of each.
    """

    def __init__(
        self, nearest: tuple[Nearest, ...], together: tuple[Nearest, ...], binding: str, hint: str
    ) -> None:
        super().__init__(binding, hint)
        self.nearest = nearest
        self.together = together


def infeasible(
    constraints: Constraints,
    limits: Sequence[Limit],
    found: Sequence[Candidate],
) -> InfeasibleError:
    """Return the error for constraints that none of `found`, all timed, meets."""
    nearest = []
    for limit in limits:
        others = [other for other in limits if other is not limit]
        best = limit.least(c for c in found if all(other.met(c) for other in others))
        if best is not None:
            nearest.append(Nearest(limit.name, limit.asked, _enough(limit, best), best))
    nearest += _shorter_context(constraints, limits, found)
    if nearest:
        return _one_binds(tuple(nearest))
    return _several_bind(limits, found)


def _one_binds(nearest: tuple[Nearest, ...]) -> InfeasibleError:
    first = nearest[0]
    message = (
        f"constraints: nothing meets them all; {first.constraint} {_number(first.asked)} is the "
        "binding constraint: with the others kept, the nearest value that a model meets is "
        f"{_number(first.needed)}"
    )
    return InfeasibleError(nearest, (), message, f"allow {'; or '.join(map(str, nearest))}")


def _several_bind(limits: Sequence[Limit], found: Sequence[Candidate]) -> InfeasibleError:
    """Name what the model that is nearest to all limits at once needs of those it breaks."""
    closest = min(found, key=lambda c: max(limit.excess(c) for limit in limits))
    broken = [limit for limit in limits if not limit.met(closest)]
    together = tuple(
        Nearest(limit.name, limit.asked, _enough(limit, closest), closest) for limit in broken
    )
    names = " and ".join(limit.name for limit in broken)
    message = f"constraints: nothing meets them all; {names} bind together, neither is enough alone"
    return InfeasibleError((), together, message, f"allow {' and '.join(map(str, together))}")


def _shorter_context(
    constraints: Constraints, limits: Sequence[Limit], found: Sequence[Candidate]
) -> list[Nearest]:
    """Return the longest context that would fit the memory, if some context does."""
    others = limits[1:]  # memory is the first
    fitting = [
        (_context_for(constraints, candidate), candidate)
        for candidate in found
        if all(other.met(candidate) for other in others)
    ]
    context, candidate = max(fitting, key=lambda pair: pair[0], default=(0, None))
    least = constraints.depth if constraints.decode_tok_s is not None else 1
    if candidate is None or not least <= context < constraints.context:
        return []
    return [Nearest("context", constraints.context, context, candidate)]


def _context_for(constraints: Constraints, candidate: Candidate) -> int:
    """Return the tokens whose cache fits beside the weights."""
    per_token = candidate.kv_bytes // constraints.context
    return (constraints.memory_bytes - candidate.weight_bytes) // per_token


def _enough(limit: Limit, candidate: Candidate) -> float:
    """Return a value of the limit that the candidate meets: whole, or six digits of it."""
    need = limit.need(candidate)
    if float(need).is_integer() and need < LARGE:
        return need
    unit = 10.0 ** (floor(log10(need)) - 5)
    return (ceil(need / unit) if limit.at_most else floor(need / unit)) * unit


def _number(value: float) -> str:
    whole = float(value).is_integer() and value < LARGE
    return f"{int(value)}" if whole else f"{value:.6g}"
