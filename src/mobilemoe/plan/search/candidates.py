"""Every sound shape as a candidate: its bytes, its training cost, its loss and its speed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from mobilemoe.plan.law import MoELaw
from mobilemoe.plan.search.candidate import Candidate
from mobilemoe.plan.search.constraints import Constraints
from mobilemoe.plan.search.counts import counted, sound_shapes
from mobilemoe.plan.search.reach import estimate, training_tokens
from mobilemoe.plan.search.result import FunnelStep

FLOPS_PER_PARAMETER_AND_TOKEN = 6  # forward and backward (arXiv 2605.27358, 2203.15556)


def candidates(
    law: MoELaw, constraints: Constraints
) -> tuple[tuple[Candidate, ...], tuple[FunnelStep, ...]]:
    """Return all candidates without their speeds, and the rules that led to them."""
    shapes, funnel = sound_shapes(constraints.granularities, constraints.shared_expert)
    found = []
    for shape, counts in counted(shapes, constraints.vocab_size, constraints.kv_format):
        active = counts.active_params
        tokens = training_tokens(law, constraints, active)
        found.append(
            Candidate(
                shape=shape,
                vocab_size=constraints.vocab_size,
                context=constraints.context,
                total_params=counts.total_params,
                active_params=active,
                weight_bytes=counts.weight_bytes,
                kv_bytes=constraints.context * counts.kv_bytes_per_token,
                tokens=tokens,
                training_flops=FLOPS_PER_PARAMETER_AND_TOKEN * active * tokens,
                loss=estimate(law, constraints, shape, active),
            )
        )
    return tuple(found), funnel


@dataclass(frozen=True)
class Speeds:
    """Predicted speeds on a device, each computed once however often the search asks."""

    known: dict[tuple[object, ...], float] = field(default_factory=dict)

    def timed(self, constraints: Constraints, found: Iterable[Candidate]) -> tuple[Candidate, ...]:
        """Return the candidates with their speeds; unchanged without a device."""
        if constraints.device is None:
            return tuple(found)
        return tuple(self._timed(constraints, candidate) for candidate in found)

    def _timed(self, constraints: Constraints, candidate: Candidate) -> Candidate:
        decode = self.decode_tok_s(constraints, candidate, constraints.depth)
        ttft = None if constraints.ttft_s is None else self._ttft_s(constraints, candidate)
        return replace(candidate, decode_tok_s=decode, ttft_s=ttft)

    def decode_tok_s(self, constraints: Constraints, candidate: Candidate, depth: int) -> float:
        """Return the tokens per second with `depth` positions in the cache."""
        from mobilemoe.plan.device import decode_seconds

        assert constraints.device is not None
        key = _key("decode", constraints, candidate, depth)
        if key not in self.known:
            self.known[key] = 1 / decode_seconds(
                constraints.device,
                candidate.config,
                depth,
                threads=constraints.threads,
                kv_format=constraints.kv_format,
            )
        return self.known[key]

    def _ttft_s(self, constraints: Constraints, candidate: Candidate) -> float:
        from mobilemoe.plan.device import prefill_seconds

        assert constraints.device is not None
        tokens = constraints.prompt_tokens
        key = _key("prefill", constraints, candidate, tokens)
        if key not in self.known:
            self.known[key] = prefill_seconds(
                constraints.device,
                candidate.config,
                tokens,
                threads=constraints.threads,
                kv_format=constraints.kv_format,
            )
        return self.known[key]


def _key(
    kind: str, constraints: Constraints, candidate: Candidate, positions: int
) -> tuple[object, ...]:
    shape, vocab = candidate.shape, candidate.vocab_size
    return kind, shape, vocab, positions, constraints.kv_format, constraints.threads
