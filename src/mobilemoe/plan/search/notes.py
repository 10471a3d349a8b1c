"""What the chosen model uses of each limit, what it leaves, and what the numbers assume."""

from __future__ import annotations

from dataclasses import replace

from mobilemoe.plan.family import WIDTHS
from mobilemoe.plan.law import MoELaw
from mobilemoe.plan.search.candidate import Candidate
from mobilemoe.plan.search.candidates import Speeds
from mobilemoe.plan.search.choice import TOKENS_PER_PARAMETER
from mobilemoe.plan.search.constraints import Constraints
from mobilemoe.plan.search.counts import count
from mobilemoe.plan.search.search import Found


def notes(law: MoELaw, constraints: Constraints, found: Found, speeds: Speeds) -> tuple[str, ...]:
    """Return the notes on the chosen model."""
    chosen = found.chosen
    sentences = [_use(constraints, chosen), _training(law, constraints, chosen)]
    if constraints.device is not None:
        sentences.append(_speed(constraints, chosen, speeds))
    sentences += _cheaper_tie(law, constraints, found)
    sentences.append(_next_width(constraints, chosen))
    return tuple(sentences)


def _use(constraints: Constraints, chosen: Candidate) -> str:
    weights, kv = chosen.weight_bytes / 1e6, chosen.kv_bytes / 1e6
    compute = f"{chosen.flops_per_token / 1e6:,.2f}"
    if constraints.flops_per_token is not None:
        compute = f"{compute} of {constraints.flops_per_token / 1e6:,.2f}"
    return (
        f"Memory: {weights:,.2f} MB of weights and {kv:,.2f} MB of KV cache, together "
        f"{weights + kv:,.2f} of {constraints.memory_bytes / 1e6:,.2f} MB; compute: {compute} "
        "MFLOP per token."
    )


def _training(law: MoELaw, constraints: Constraints, chosen: Candidate) -> str:
    amount = f"{tokens_in_words(chosen.tokens)} tokens, {chosen.training_flops:.3g} FLOPs (6 N D)"
    each = chosen.tokens / chosen.active_params
    if each < TOKENS_PER_PARAMETER:
        amount += (
            f": {each:.2g} per active parameter, where about {TOKENS_PER_PARAMETER} use the "
            "compute best (arXiv 2203.15556)"
        )
    if constraints.tokens is not None:
        return f"Training: {amount}, as asked; pre-training alone."
    if constraints.train_flops is not None:
        return f"Training: the budget buys {amount}; pre-training alone."
    if chosen.loss is None:
        return f"No training budget was given; for scale: {amount}."
    return (
        f"No training budget was given: models are compared at {law.token_grid[-1] / 1e9:g} "
        f"billion tokens, the most the law was fitted on; that would take "
        f"{chosen.training_flops:.3g} FLOPs (6 N D)."
    )


def tokens_in_words(value: float) -> str:
    """Return a number of tokens in billions, or in full if it is far from one."""
    return f"{value / 1e9:,.4g} billion" if value >= 1e8 else f"{value:,.0f}"


def _speed(constraints: Constraints, chosen: Candidate, speeds: Speeds) -> str:
    device, full = constraints.device, constraints.context
    assert device is not None
    slowest = speeds.decode_tok_s(constraints, chosen, full)
    return (
        f"Speed, predicted from the constants of {device.name}: {chosen.decode_tok_s:,.1f} "
        f"tokens/s with {constraints.depth:,} positions in the cache, {slowest:,.1f} with all "
        f"{full:,}."
    )


def _cheaper_tie(law: MoELaw, constraints: Constraints, found: Found) -> list[str]:
    """Name the smallest model with another E that the law cannot tell from the chosen one."""
    chosen = found.chosen
    if chosen.loss is None:
        return []
    lowest = min(c.loss.loss for c in found.compared if c.loss)
    equal = [
        candidate
        for candidate in found.compared
        if candidate.loss is not None
        and law.is_tie(candidate.loss.loss, lowest)
        and candidate.memory_bytes < chosen.memory_bytes
        and candidate.expert_equivalents != chosen.expert_equivalents
    ]
    if not equal:
        return []
    other = min(equal, key=lambda c: c.memory_bytes)
    assert other.loss is not None
    saved = (chosen.memory_bytes - other.memory_bytes) / 1e6
    return [
        f"E = {other.expert_equivalents} ({other.shape.hidden_size} x "
        f"{other.shape.num_hidden_layers}) would take {saved:,.0f} MB less at a predicted loss of "
        f"{other.loss.loss:.3f} against {chosen.loss.loss:.3f}, which the law cannot tell apart; "
        "--prefer memory takes the smallest such."
    ]


def _next_width(constraints: Constraints, chosen: Candidate) -> str:
    """Say what the next larger shape of this form would take."""
    wider = chosen.shape.wider()
    if wider is None:
        return f"This is the largest shape of the family, which ends at width {WIDTHS[-1]}."
    counts = count(wider, constraints.vocab_size, constraints.kv_format)
    larger = replace(
        chosen,
        shape=wider,
        active_params=counts.active_params,
        weight_bytes=counts.weight_bytes,
        kv_bytes=constraints.context * counts.kv_bytes_per_token,
    )
    return (
        f"The next width, {wider.hidden_size}, would take {larger.memory_bytes / 1e6:,.2f} MB and "
        f"{larger.flops_per_token / 1e6:,.2f} MFLOP per token."
    )
