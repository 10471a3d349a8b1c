"""Which of the feasible models to train: the lowest loss, then conventions among its ties."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mobilemoe.plan.family import GRANULARITY, family_depth
from mobilemoe.plan.law import MoELaw
from mobilemoe.plan.search.candidate import Candidate
from mobilemoe.plan.search.constraints import Constraints, Preference
from mobilemoe.plan.search.result import FunnelStep

# Training is compute-optimal at about this many (arXiv 2203.15556, of dense models); on a device,
# where running a model costs more than training it, more are better.
TOKENS_PER_PARAMETER = 20


def ties(law: MoELaw, found: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Return what the law cannot tell from the best: all of `found` if it has no loss for any."""
    lowest = min((c.loss.loss for c in found if c.loss is not None), default=None)
    if lowest is None:
        return tuple(found)
    return tuple(c for c in found if c.loss is not None and law.is_tie(c.loss.loss, lowest))


def choose(
    law: MoELaw, constraints: Constraints, found: Sequence[Candidate]
) -> tuple[Candidate, tuple[FunnelStep, ...]]:
    """Return the model to train and the rules that single it out of `found`, which is not empty.

    Among ties the number of experts is a convention: the law's best over its whole sweep, which is
    also what was trained. Then the form of the experts, the family's depth, and the loss.
    """
    funnel: list[FunnelStep] = []
    left = ties(law, found)
    if len(left) < len(found):
        rule = f"a predicted loss within the law's error ({law.rmse:.2g}) of the lowest"
        funnel.append(FunnelStep("loss", rule, len(left)))
    for step, rule, key in (*_enough_tokens(constraints, left), *_rules(law, constraints.prefer)):
        best = min(map(key, left))
        kept = tuple(candidate for candidate in left if key(candidate) == best)
        if len(kept) < len(left):
            shown = rule.format(E=kept[0].expert_equivalents)
            funnel.append(FunnelStep(step, shown, len(kept)))
        left = kept
    chosen = min(left, key=_size)
    if len(left) == 1:
        return left[0], tuple(funnel)
    best = "the lowest predicted loss" if chosen.loss else "the most active parameters"
    funnel.append(FunnelStep("size", f"of those, {best}", 1))
    return chosen, tuple(funnel)


Rule = tuple[str, str, Callable[[Candidate], Any]]


def _enough_tokens(constraints: Constraints, left: Sequence[Candidate]) -> tuple[Rule, ...]:
    """Return the rule that keeps a training budget from being spread over too large a model.

    Where the law does not reach, nothing else would: the most active parameters would win, however
    few tokens are left for each.
    """
    if left[0].loss is not None or (constraints.tokens is None and constraints.train_flops is None):
        return ()
    rule = f"{TOKENS_PER_PARAMETER} training tokens per active parameter or more, or the nearest"
    return (("tokens", f"{rule} (arXiv 2203.15556)", _missing_tokens),)


def _missing_tokens(candidate: Candidate) -> float:
    """Return how many tokens per active parameter a candidate's training falls short."""
    return max(0.0, TOKENS_PER_PARAMETER - candidate.tokens / candidate.active_params)


def _rules(law: MoELaw, prefer: Preference) -> tuple[Rule, ...]:
    means = {experts: law.mean_loss(experts) for experts in law.expert_grid}
    best_experts = "E = {E}: of what is left, the lowest mean loss over the law's own sweep"
    conventions: tuple[Rule, ...] = (
        ("experts", best_experts, lambda c: means.get(c.expert_equivalents, float("inf"))),
        ("shared", "a shared expert, which lowers the loss", lambda c: not c.shape.shared_expert),
        (
            "granularity",
            "the granularity nearest to 8, which the law was fitted on",
            lambda c: abs(c.shape.granularity - GRANULARITY),
        ),
        ("family depth", "the depth nearest to one layer per 40 of width", _off_depth),
    )
    wishes: dict[Preference, tuple[Rule, ...]] = {
        "loss": (),
        "memory": (("memory", "the least memory, as preferred", lambda c: c.memory_bytes),),
        "speed": (
            ("speed", "the fastest decoding, as preferred", lambda c: -(c.decode_tok_s or 0)),
        ),
        "training": (("cost", "the cheapest training, as preferred", lambda c: c.training_flops),),
    }
    return (*wishes[prefer], *conventions)


def _off_depth(candidate: Candidate) -> int:
    shape = candidate.shape
    return abs(shape.num_hidden_layers - family_depth(shape.hidden_size))


def _size(candidate: Candidate) -> tuple[float, int, int]:
    loss = candidate.loss.loss if candidate.loss else 0.0
    return loss, -candidate.active_params, candidate.memory_bytes
