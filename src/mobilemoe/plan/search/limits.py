"""The constraints as limits on candidates: what each needs, what is allowed, and the rule."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from mobilemoe.plan.search.candidate import Candidate
from mobilemoe.plan.search.constraints import Constraints


@dataclass(frozen=True)
class Limit:
    """One constraint: `name` is its field, `need` what a candidate has of it.

    `at_most`: whether a need may not be above `asked`, or not below it (a speed).
    """

    name: str
    step: str
    rule: str
    asked: float
    need: Callable[[Candidate], float]
    at_most: bool = True

    def met(self, candidate: Candidate) -> bool:
        """Whether the candidate keeps the limit."""
        need = self.need(candidate)
        return need <= self.asked if self.at_most else need >= self.asked

    def excess(self, candidate: Candidate) -> float:
        """Return how many times the limit a candidate needs; at most 1 if it is met."""
        need = self.need(candidate)
        return need / self.asked if self.at_most else self.asked / need

    def least(self, found: Iterable[Candidate]) -> Candidate | None:
        """Return the candidate that needs the least of it, None if there is none."""
        return min(found, key=self.excess, default=None)


def static_limits(constraints: Constraints) -> tuple[Limit, ...]:
    """Return the limits that need no device."""
    asked = constraints.memory_bytes
    rule = (
        f"INT4 weights and the {constraints.kv_format} KV cache of {constraints.context:,} tokens "
        f"within {asked / 1e6:,g} MB"
    )
    limits = [Limit("memory_bytes", "memory", rule, asked, lambda c: c.memory_bytes)]
    if constraints.flops_per_token is not None:
        flops = constraints.flops_per_token
        rule = f"at most {flops / 1e6:,g} MFLOP per token (2 per active parameter)"
        limits.append(Limit("flops_per_token", "compute", rule, flops, lambda c: c.flops_per_token))
    if constraints.train_flops is not None and constraints.tokens is not None:
        budget = constraints.train_flops
        rule = f"{constraints.tokens:.4g} tokens within {budget:.3g} training FLOPs (6 N D)"
        limits.append(Limit("train_flops", "training", rule, budget, lambda c: c.training_flops))
    return tuple(limits)


def speed_limits(constraints: Constraints) -> tuple[Limit, ...]:
    """Return the limits on candidates that have been timed on the device."""
    limits = []
    if constraints.decode_tok_s is not None:
        rule = (
            f"at least {constraints.decode_tok_s:g} tokens/s with {constraints.depth:,} positions "
            "in the cache"
        )
        asked = constraints.decode_tok_s
        limits.append(Limit("decode_tok_s", "decode", rule, asked, _decode_tok_s, at_most=False))
    if constraints.ttft_s is not None:
        rule = f"a prompt of {constraints.prompt_tokens:,} tokens within {constraints.ttft_s:g} s"
        limits.append(Limit("ttft_s", "prefill", rule, constraints.ttft_s, _ttft_s))
    return tuple(limits)


def _decode_tok_s(candidate: Candidate) -> float:
    assert candidate.decode_tok_s is not None
    return candidate.decode_tok_s


def _ttft_s(candidate: Candidate) -> float:
    assert candidate.ttft_s is not None
    return candidate.ttft_s
