"""The Pareto front as points: what of each candidate is compared, and which one was chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mobilemoe.page.markup import TIMES
from mobilemoe.plan.search import Candidate, Plan, thinned

NBSP = "\u00a0"


@dataclass(frozen=True)
class FrontPoint:
    """One member of the front. `loss` and the speeds are None where nothing is known of them.

    `outside`: the law was not fitted there. `tied`: its loss is within the fit's error of the
    lowest.
    """

    name: str
    expert_equivalents: int
    active_params: float
    memory_bytes: float
    training_flops: float
    loss: float | None
    outside: bool
    decode_tok_s: float | None
    ttft_s: float | None
    chosen: bool
    tied: bool


def front_points(plan: Plan, most: int | None = None) -> tuple[FrontPoint, ...]:
    """Return the front in its order, `most` of it in even steps of memory, and the chosen one."""
    members: Sequence[Candidate] = plan.front if most is None else thinned(plan.front, most)
    if plan.chosen not in members:
        members = (plan.chosen, *members)
    return tuple(_point(each, plan) for each in members)


def candidate_name(candidate: Candidate) -> str:
    """Return a candidate as a reader names it: 768 x 20, E 8, g 8, shared."""
    shape = candidate.shape
    size = f"{shape.hidden_size}{NBSP}{TIMES}{NBSP}{shape.num_hidden_layers}"
    if shape.is_dense:
        return f"{size}, dense"
    form = ", shared" if shape.shared_expert else ""
    return f"{size}, E{NBSP}{shape.expert_equivalents}, g{NBSP}{shape.granularity}{form}"


def _point(candidate: Candidate, plan: Plan) -> FrontPoint:
    loss = candidate.loss
    return FrontPoint(
        name=candidate_name(candidate),
        expert_equivalents=candidate.expert_equivalents,
        active_params=candidate.active_params,
        memory_bytes=candidate.memory_bytes,
        training_flops=candidate.training_flops,
        loss=None if loss is None else loss.loss,
        outside=loss is not None and bool(loss.outside),
        decode_tok_s=candidate.decode_tok_s,
        ttft_s=candidate.ttft_s,
        chosen=candidate == plan.chosen,
        tied=candidate in plan.ties,
    )
