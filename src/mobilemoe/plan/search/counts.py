"""What every shape of the family weighs: counted once by the config's own methods.

Parameters and bytes grow by the same amount with every layer, so two depths of a form give all
depths exactly; the methods that count are those the checkpoint writer agrees with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

from mobilemoe.config import KvFormat
from mobilemoe.plan.family import EXPERT_EQUIVALENTS, Shape, depths, family
from mobilemoe.plan.search.result import FunnelStep

EXPERTS = ", ".join(map(str, EXPERT_EQUIVALENTS))


@dataclass(frozen=True)
class Counts:
    """Parameters, bytes of the INT4 file's tensors and bytes of KV cache per token."""

    total_params: int
    active_params: int
    weight_bytes: int
    kv_bytes_per_token: int

    def deeper(self, layer: Counts, layers: int) -> Counts:
        """Return the counts with `layers` more layers of `layer` each."""
        return Counts(
            self.total_params + layers * layer.total_params,
            self.active_params + layers * layer.active_params,
            self.weight_bytes + layers * layer.weight_bytes,
            self.kv_bytes_per_token + layers * layer.kv_bytes_per_token,
        )


@lru_cache(maxsize=8)
def sound_shapes(
    granularities: tuple[int, ...], shared_expert: tuple[bool, ...]
) -> tuple[tuple[Shape, ...], tuple[FunnelStep, ...]]:
    """Return the shapes that meet the rules of every device, and what each rule left."""
    shapes = family(granularities, shared_expert)
    rule = f"every width in steps of 32, every depth, E of {EXPERTS} expert equivalents"
    funnel = [FunnelStep("family", rule, len(shapes))]

    def keep(step: str, rule: str, holds: Callable[[Shape], bool]) -> None:
        nonlocal shapes
        left = tuple(shape for shape in shapes if holds(shape))
        if len(left) < len(shapes):
            funnel.append(FunnelStep(step, rule, len(left)))
        shapes = left

    rule = "heads of 64 fill the width, many heads share keys, INT4 groups of 32 fill every expert"
    keep("kernels", rule, lambda shape: shape.is_kernel_friendly)
    rule = "one layer per 40 of width, rounded up (S, M and L follow it), give or take a tenth"
    keep("depth", rule, lambda shape: shape.num_hidden_layers in depths(shape.hidden_size))
    rule = "four devices of an expert-parallel group hold equally many experts"
    keep("sharing", rule, lambda shape: shape.is_shared_evenly)
    return shapes, tuple(funnel)


@lru_cache(maxsize=16)
def counted(
    shapes: tuple[Shape, ...], vocab_size: int, kv_format: KvFormat
) -> tuple[tuple[Shape, Counts], ...]:
    """Return every shape with its counts.

    Raises:
        MobileMoEError: if the vocabulary has no room for the special tokens.
    """
    forms: dict[Shape, tuple[Counts, Counts]] = {}
    counts = []
    for shape in shapes:
        form = replace(shape, num_hidden_layers=1)
        if form not in forms:
            forms[form] = _form(form, vocab_size, kv_format)
        first, layer = forms[form]
        counts.append((shape, first.deeper(layer, shape.num_hidden_layers - 1)))
    return tuple(counts)


def _form(form: Shape, vocab_size: int, kv_format: KvFormat) -> tuple[Counts, Counts]:
    """Return the counts of one layer with everything around it, and of each further layer."""
    one = count(form, vocab_size, kv_format)
    two = count(replace(form, num_hidden_layers=2), vocab_size, kv_format)
    return one, two.deeper(one, -1)


def count(shape: Shape, vocab_size: int, kv_format: KvFormat) -> Counts:
    """Return the counts of one shape, tensor by tensor."""
    config = shape.config(vocab_size, context=1)
    return Counts(
        config.total_params,
        config.active_params,
        config.weight_bytes("int4"),
        config.kv_bytes_per_token(kv_format),
    )
