"""From a budget to an architecture: a family of shapes and one rule after another.

Each rule is one sentence and leaves fewer shapes; `Design.funnel` counts them. The scaling
law has a say only in the number of experts, because that is the one thing it can be asked
about outside its fitted range without computing a loss there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mobilemoe.config import ModelConfig
from mobilemoe.plan.budget import Budget, compute_too_small, memory_too_small
from mobilemoe.plan.family import EXPERT_EQUIVALENTS, WIDTH_PER_LAYER, Shape, family
from mobilemoe.plan.law import MoELaw, published_law
from mobilemoe.plan.notes import design_notes


@dataclass(frozen=True)
class FunnelStep:
    """One rule: its name, the rule as a sentence and how many shapes it left."""

    step: str
    rule: str
    left: int


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


@dataclass(frozen=True)
class _Candidate:
    shape: Shape
    config: ModelConfig


def design(budget: Budget) -> Design:
    """Return the architecture for `budget`; deterministic, no training, no measurement.

    Raises:
        MobileMoEError: if no shape fits, naming the binding constraint and the smallest
            value that would do.
    """
    law = published_law()
    funnel: list[FunnelStep] = []
    affordable = _within_budget(budget, _sound_shapes(budget, funnel), funnel)
    best = _best_experts(law, affordable, funnel)
    chosen = max(best, key=lambda candidate: candidate.config.active_params)
    funnel.append(FunnelStep("size", "of those, the most active parameters", 1))
    config = chosen.config
    experts = chosen.shape.expert_equivalents
    return Design(
        config=config,
        twin=config.dense_twin() if config.is_moe else config,
        expert_equivalents=experts,
        funnel=tuple(funnel),
        notes=design_notes(law, budget, chosen.shape, config),
    )


def _sound_shapes(budget: Budget, funnel: list[FunnelStep]) -> list[_Candidate]:
    """Apply the rules that hold for every device."""
    shapes = family()
    experts = ", ".join(map(str, EXPERT_EQUIVALENTS))
    rule = f"every width in steps of 32, every depth, E of {experts} expert equivalents"
    funnel.append(FunnelStep("family", rule, len(shapes)))
    friendly = [shape for shape in shapes if shape.is_kernel_friendly]
    rule = "heads of 64 fill the width and INT4 groups of 32 fill every expert"
    funnel.append(FunnelStep("kernels", rule, len(friendly)))
    sound = [shape for shape in friendly if shape.has_family_depth]
    rule = f"one layer per {WIDTH_PER_LAYER} of width, rounded up (S, M and L follow it)"
    funnel.append(FunnelStep("depth", rule, len(sound)))
    return [_Candidate(shape, shape.config(budget.vocab_size, budget.context)) for shape in sound]


def _within_budget(
    budget: Budget, candidates: Sequence[_Candidate], funnel: list[FunnelStep]
) -> list[_Candidate]:
    """Apply the device's two limits, memory first."""
    needs = [(budget.memory_of(candidate.config), candidate) for candidate in candidates]
    fitting = [candidate for need, candidate in needs if need <= budget.memory_bytes]
    if not fitting:
        raise memory_too_small(budget, min(need for need, _ in needs))
    rule = (
        f"INT4 weights and the {budget.kv_format} KV cache of {budget.context} tokens "
        f"within {budget.memory_bytes / 1e6:g} MB"
    )
    funnel.append(FunnelStep("memory", rule, len(fitting)))
    limit = budget.flops_per_token
    affordable = [c for c in fitting if c.config.flops_per_token <= limit]
    if not affordable:
        raise compute_too_small(budget, min(c.config.flops_per_token for c in fitting))
    rule = f"at most {limit / 1e6:g} MFLOP per token (2 per active parameter)"
    funnel.append(FunnelStep("compute", rule, len(affordable)))
    return affordable


def _best_experts(
    law: MoELaw, candidates: Sequence[_Candidate], funnel: list[FunnelStep]
) -> list[_Candidate]:
    """Keep the expert count that the law likes best over its own sweep."""
    choices = sorted({candidate.shape.expert_equivalents for candidate in candidates})
    best = law.best_num_experts(choices)
    left = [candidate for candidate in candidates if candidate.shape.expert_equivalents == best]
    rule = f"E = {best}: of what is left, the lowest mean loss over the law's own sweep"
    funnel.append(FunnelStep("experts", rule, len(left)))
    return left
