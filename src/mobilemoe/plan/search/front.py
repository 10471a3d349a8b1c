"""The Pareto front of quality, memory, decode speed and training cost."""

from __future__ import annotations

from collections.abc import Sequence

from mobilemoe.plan.law import MoELaw
from mobilemoe.plan.search.candidate import Candidate

Costs = tuple[float, ...]  # each the lower the better


def pareto_front(law: MoELaw, found: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Return the candidates that no other beats in one cost and equals in the rest, best first.

    The quality is the law's loss; among equal losses (the law was asked at the edge of its range)
    more active parameters are better. Where no candidate has a loss, active parameters and the
    law's mean loss of E over its own sweep are two qualities.
    """
    ordered = sorted(((costs(law, candidate), candidate) for candidate in found), key=_by_costs)
    front: list[tuple[Costs, Candidate]] = []
    for mine, candidate in ordered:  # in this order, only an earlier one can be as good
        if not any(covers(other, mine) for other, _ in front):
            front.append((mine, candidate))
    return tuple(candidate for _, candidate in front)


def costs(law: MoELaw, candidate: Candidate) -> Costs:
    """Return what is compared of a candidate, each the lower the better."""
    quality: Costs
    if candidate.loss is not None:
        # A billionth of a nat is far below any difference the law could mean.
        quality = (candidate.loss.loss - 1e-9 * candidate.active_params / law.active_grid[-1],)
    else:
        quality = (law.mean_loss(candidate.expert_equivalents), -candidate.active_params)
    slowness = () if candidate.decode_tok_s is None else (-candidate.decode_tok_s,)
    return (*quality, candidate.memory_bytes, candidate.training_flops, *slowness)


def thinned(front: Sequence[Candidate], rows: int) -> tuple[Candidate, ...]:
    """Return at most `rows` members, from the first to the last in even steps of memory."""
    if len(front) <= rows:
        return tuple(front)
    low, high = min(c.memory_bytes for c in front), max(c.memory_bytes for c in front)
    picked = []
    for row in range(rows):
        target = high - (high - low) * row / (rows - 1)
        left = [candidate for candidate in front if candidate not in picked]
        picked.append(min(left, key=lambda c: abs(c.memory_bytes - target)))
    return tuple(candidate for candidate in front if candidate in picked)


def covers(other: Costs, mine: Costs) -> bool:
    """Whether `other` is at least as good as `mine` in everything."""
    return all(theirs <= ours for theirs, ours in zip(other, mine, strict=True))


def _by_costs(pair: tuple[Costs, Candidate]) -> Costs:
    return pair[0]
