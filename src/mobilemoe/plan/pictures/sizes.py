"""What each expert count weighs: active parameters and bytes along the planner's family.

W widths of the family. Every layer of a model is alike, so one and two layers say what any
number of them takes. For the pictures a depth is D / 40 and not rounded up, and between widths
both numbers are interpolated: a boundary between two expert counts is then a line and not the
stairs of whole layers and 64 channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mobilemoe.config import KvFormat, ModelConfig
from mobilemoe.plan.family import HEAD_DIM, MAX_KV_HEADS, WIDTH_PER_LAYER, Shape, kv_heads

Floats = NDArray[np.float64]
# Far beyond the largest member, so that the dense model can use the largest memory drawn.
_MOST_HEADS = 128
# Only heads that allow all KV heads of their size: 13 heads have one and 12 have four, so that
# with a long context a wider model may be smaller, and no line between budgets would be smooth.
_WIDTHS = tuple(
    HEAD_DIM * heads
    for heads in range(1, _MOST_HEADS + 1)
    if kv_heads(heads) == max(1, min(MAX_KV_HEADS, heads // 2))
)


@dataclass(frozen=True)
class Sizes:
    """The family with one E: active parameters and memory [bytes], both increasing."""

    expert_equivalents: int
    active_W: Floats
    memory_W: Floats

    def memory_of(self, active: Floats) -> Floats:
        """Return the bytes of models with so many active parameters, between widths too."""
        known = np.interp(np.log(active), np.log(self.active_W), np.log(self.memory_W))
        return np.exp(known)

    def active_within(self, memory: float) -> float:
        """Return the most active parameters that fit into `memory` bytes; 0 if nothing does."""
        if memory < self.memory_W[0]:
            return 0.0
        return float(
            np.exp(np.interp(np.log(memory), np.log(self.memory_W), np.log(self.active_W)))
        )


def family_sizes(
    experts: Sequence[int], *, vocab_size: int, context: int = 0, kv_format: KvFormat = "int8"
) -> tuple[Sizes, ...]:
    """Return the sizes of the family for each E: INT4 weights and the KV cache of `context`.

    Raises:
        MobileMoEError: if the vocabulary has no room for the special tokens, or the number
            format is unknown.
    """
    return tuple(_sizes(each, vocab_size, context, kv_format) for each in experts)


def _sizes(experts: int, vocab_size: int, context: int, kv_format: KvFormat) -> Sizes:
    counted = []
    for width in _WIDTHS:
        one, two = (Shape(width, n, experts).config(vocab_size, max(2, context)) for n in (1, 2))
        more = width / WIDTH_PER_LAYER - 1
        first, second = (_counts(c, context, kv_format) for c in (one, two))
        counted.append([a + more * (b - a) for a, b in zip(first, second, strict=True)])
    active, memory = np.array(counted, dtype=np.float64).T
    return Sizes(experts, active, memory)


def _counts(config: ModelConfig, context: int, kv_format: KvFormat) -> tuple[int, int]:
    kv = context * config.kv_bytes_per_token(kv_format)
    return config.active_params, config.weight_bytes("int4") + kv
