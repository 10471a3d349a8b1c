"""From a budget to an architecture and its dense twin: the planner's answer on two limits."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from mobilemoe.config import ModelConfig
from mobilemoe.plan.budget import Budget
from mobilemoe.plan.search import Constraints, FunnelStep, plan


@dataclass(frozen=True)
class Design:
    """The model chosen for a budget, its dense twin, and the account of the choice.

    `twin` is the dense model of nearly equal INT4 bytes (the design itself if it is dense);
    `expert_equivalents` is the law's E; `notes` are sentences on what the choice rests on.
    """

    config: ModelConfig
    twin: ModelConfig
    expert_equivalents: int
    funnel: tuple[FunnelStep, ...]
    notes: tuple[str, ...]


def design(budget: Budget) -> Design:
    """Return the architecture for `budget`; deterministic, no training, no measurement.

    Raises:
        MobileMoEError: if no shape fits, naming the binding constraint and the smallest
            value that would do.
    """
    found = plan(Constraints(**asdict(budget)), with_sensitivity=False)
    config = found.chosen.config
    return Design(
        config=config,
        twin=config.dense_twin() if config.is_moe else config,
        expert_equivalents=found.chosen.expert_equivalents,
        funnel=found.funnel,
        notes=(*found.confidence, *found.notes),
    )
