"""Equal memory, equal training compute: which number of experts reaches the lowest loss.

A memory of INT4 weights allows a dense model many active parameters, or an MoE fewer of more in
total. The family's shapes (`family`) say how many for each E: sizes between two widths are
interpolated in the logarithms, so that every E fills the memory exactly. The training budget C
gives each its tokens, D = C / (6 N_act) (arXiv 2605.27358), and the law the loss.

The paper's memory constraint counts 4 bits per parameter; a file adds the scales of its groups and
what stays in floats. Either count can be asked for; at 3e21 FLOPs and with the released vocabulary
dense wins at 0.25 GB and loses at 0.5 GB by both. Few of these points have parameters and tokens
within the law's sweep: each carries what is outside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import exp, isfinite, log
from typing import Literal

from mobilemoe.config import LLAMA3_VOCAB_SIZE, ModelConfig
from mobilemoe.errors import MobileMoEError
from mobilemoe.plan.family import EXPERT_EQUIVALENTS, Shape, family_depth
from mobilemoe.plan.law import MoELaw, Prediction

Count = Literal["file", "half_byte"]
TRAINING_FLOPS = 6  # per active parameter and token
# The family's rule, continued beyond its widest member: dense models of gigabytes are that wide.
INTERPOLATED_WIDTHS = (*range(128, 1024, 128), *range(1024, 4096 + 1, 256))
NO_CONTEXT = 1  # the rotary table is no weight; any context gives the same counts

WEIGHT_BYTES: Mapping[Count, Callable[[ModelConfig], float]] = {
    "file": lambda config: config.weight_bytes("int4"),
    "half_byte": lambda config: config.total_params / 2,
}


@dataclass(frozen=True)
class EqualMemoryPoint:
    """What one E makes of a memory and a training budget.

    `active_params` N and `total_params` fill the memory; `tokens` D = C / (6 N). `loss` carries
    what of this lies outside the law's sweep.
    """

    num_experts: int
    active_params: float
    total_params: float
    tokens: float
    loss: Prediction


def equal_memory(
    law: MoELaw,
    memory_bytes: float,
    train_flops: float,
    experts: Sequence[int] = EXPERT_EQUIVALENTS,
    *,
    vocab_size: int = LLAMA3_VOCAB_SIZE,
    count: Count = "file",
) -> tuple[EqualMemoryPoint, ...]:
    """Return one point for each of `experts` whose family has a model of `memory_bytes`.

    `count` is how weights are counted: `file`, what the INT4 checkpoint takes, or `half_byte`,
    the paper's b_w / 8 N_total at 4 bits. The best E is the one with the lowest `loss.loss`.

    Raises:
        MobileMoEError: if an argument is not positive, or no E has a model of this size.
    """
    for name, value in (("memory_bytes", memory_bytes), ("train_flops", train_flops)):
        if not (isfinite(value) and value > 0):
            raise MobileMoEError(
                f"{name} is {value!r}; allowed: a positive number", hint=f"correct {name}"
            )
    sizes = {e: _sizes(e, vocab_size, count) for e in experts}
    points = tuple(
        _point(law, e, table, memory_bytes, train_flops)
        for e, table in sizes.items()
        if table[0][0] <= log(memory_bytes) <= table[-1][0]
    )
    if not points:
        low = min(exp(table[0][0]) for table in sizes.values())
        high = max(exp(table[-1][0]) for table in sizes.values())
        raise MobileMoEError(
            f"memory_bytes is {memory_bytes:g}; the family's weights take {low:.3g} to {high:.3g}",
            hint="a smaller vocabulary makes smaller models",
        )
    return points


def best_of(points: Sequence[EqualMemoryPoint]) -> EqualMemoryPoint:
    """Return the point with the lowest predicted loss."""
    return min(points, key=lambda point: point.loss.loss)


def _point(
    law: MoELaw,
    num_experts: int,
    table: Sequence[tuple[float, float, float]],
    memory_bytes: float,
    train_flops: float,
) -> EqualMemoryPoint:
    active, total = (exp(value) for value in _between(table, log(memory_bytes)))
    tokens = train_flops / (TRAINING_FLOPS * active)
    loss = law.predict(active_params=active, tokens=tokens, num_experts=num_experts)
    return EqualMemoryPoint(num_experts, active, total, tokens, loss)


def _between(table: Sequence[tuple[float, float, float]], x: float) -> tuple[float, float]:
    """Interpolate the last two columns of `table` where its first one is `x`."""
    above = next(i for i, row in enumerate(table) if i and row[0] >= x)
    low, high = table[above - 1], table[above]
    share = (x - low[0]) / (high[0] - low[0])
    return low[1] + share * (high[1] - low[1]), low[2] + share * (high[2] - low[2])


@cache
def _sizes(
    num_experts: int, vocab_size: int, count: Count
) -> tuple[tuple[float, float, float], ...]:
    """Return ln(weight bytes), ln(active) and ln(total parameters) of each width of the family."""
    configs = [
        Shape(width, family_depth(width), num_experts).config(vocab_size, NO_CONTEXT)
        for width in INTERPOLATED_WIDTHS
    ]
    size = WEIGHT_BYTES[count]
    return tuple((log(size(c)), log(c.active_params), log(c.total_params)) for c in configs)
