"""Where a model's memory goes, part by part, as the context grows.

INT4 weights do not depend on the context, the KV cache is proportional to it; both are counted
by the functions that the checkpoint writer and the engine follow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mobilemoe.config import KvFormat, ModelConfig
from mobilemoe.errors import MobileMoEError
from mobilemoe.weights import Weight

KV_CACHE = "KV cache"
# In the order of the stack, from the bottom.
PARTS = ("embedding", "attention", "feed-forward", "shared expert", "routed experts", "router")
SMALL = "norms"


@dataclass(frozen=True)
class MemoryParts:
    """Bytes of each part at each context; parts that a model lacks are left out."""

    contexts: tuple[int, ...]
    parts: Mapping[str, tuple[int, ...]]

    @property
    def totals(self) -> tuple[int, ...]:
        """Bytes of all parts at each context."""
        return tuple(sum(column) for column in zip(*self.parts.values(), strict=True))


def memory_parts(
    config: ModelConfig, contexts: Sequence[int], kv_format: KvFormat = "int8"
) -> MemoryParts:
    """Return the bytes of `config` in INT4 by part, and its KV cache, at every context.

    Raises:
        MobileMoEError: if there is no context, or one is negative.
    """
    if not contexts or any(context < 0 for context in contexts):
        raise MobileMoEError(f"contexts is {contexts!r}; allowed: numbers of tokens from 0 up")
    sums: dict[str, int] = dict.fromkeys((*PARTS, SMALL), 0)
    for weight in config.weights():
        sums[_part(weight)] += weight.bytes("int4")
    parts = {name: (size,) * len(contexts) for name, size in sums.items() if size}
    per_token = config.kv_bytes_per_token(kv_format)
    parts[KV_CACHE] = tuple(per_token * context for context in contexts)
    return MemoryParts(tuple(contexts), parts)


def even_contexts(longest: int, count: int = 9) -> tuple[int, ...]:
    """Return contexts from 0 to `longest` in equal steps."""
    return tuple(sorted({round(longest * step / (count - 1)) for step in range(count)}))


def _part(weight: Weight) -> str:
    if weight.kind == "expert":
        return "routed experts"
    if weight.kind in ("router", "expert_bias"):
        return "router"
    if weight.kind == "norm":
        return SMALL
    if weight.kind == "embedding" or weight.name == "lm_head.weight":
        return "embedding"
    if ".self_attn." in weight.name:
        return "attention"
    return "shared expert" if ".shared_expert." in weight.name else "feed-forward"
