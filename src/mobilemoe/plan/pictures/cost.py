"""What training costs: FLOPs, days and money against predicted loss, model by model.

Time and money are those of `plan.cluster`: one pre-training stage on so many GPUs, from the
peak, the bandwidths and the price of a GPU profile, each with its source.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from mobilemoe.config import ModelConfig
from mobilemoe.errors import MobileMoEError
from mobilemoe.plan.cluster import (
    GpuProfile,
    Layout,
    Quantity,
    counted_states,
    stage_memory,
    step_time,
)
from mobilemoe.plan.cluster.plan import SECONDS_PER_DAY
from mobilemoe.plan.cluster.step_time import EFFECTIVE_SHARE, LINK_EFFICIENCY
from mobilemoe.plan.law import MoELaw
from mobilemoe.recipe import Stage

CONTEXT = 2048  # of the publication's pre-training
BATCH_TOKENS = 4_194_304  # our choice, as in recipes/s.toml
LEAST_STEPS = 100  # small runs take smaller batches


@dataclass(frozen=True)
class Trainee:
    """A model to be priced: its name, shape and expert equivalents."""

    name: str
    config: ModelConfig
    expert_equivalents: int


@dataclass(frozen=True)
class CostPoint:
    """One model trained on so many tokens; `loss` is None without a law.

    `outside`: the law was not fitted there; `fits`: one row at a time fits the GPU's memory.
    """

    tokens: float
    flops: float
    days: float
    gpu_hours: float
    money: float
    loss: float | None
    outside: bool
    fits: bool


@dataclass(frozen=True)
class CostCurve:
    """The costs of one model over its token budgets."""

    trainee: Trainee
    points: tuple[CostPoint, ...]


@dataclass(frozen=True)
class Costs:
    """The curves of all models on one cluster, and the numbers that they rest on."""

    curves: tuple[CostCurve, ...]
    gpu: str
    gpus: int
    inputs: tuple[Quantity, ...]


def training_costs(
    law: MoELaw | None,
    trainees: Sequence[Trainee],
    tokens: Sequence[float],
    gpu: GpuProfile,
    gpus: int = 64,
) -> Costs:
    """Return what it costs to train each model on each number of tokens on `gpus` GPUs.

    Raises:
        MobileMoEError: if a number of tokens is not positive, or the GPUs make no layout.
    """
    if any(not each > 0 for each in tokens):
        raise MobileMoEError(f"tokens is {tuple(tokens)!r}; allowed: positive numbers")
    curves = tuple(
        CostCurve(each, tuple(_point(law, each, budget, gpus, gpu) for budget in tokens))
        for each in trainees
    )
    inputs = (*gpu.quantities(), EFFECTIVE_SHARE, LINK_EFFICIENCY)
    return Costs(curves, gpu.name, gpus, inputs)


def _point(
    law: MoELaw | None, trainee: Trainee, tokens: float, gpus: int, gpu: GpuProfile
) -> CostPoint:
    config = trainee.config
    rows = _rows(tokens, gpus)
    stage = _stage_of(rows, tokens)
    layout, fits = _layout(config, rows, gpus, gpu)
    step = step_time(config, layout, stage, gpu, gpu.mfu).total
    seconds = tokens / stage.tokens_per_step * step / EFFECTIVE_SHARE.value
    hours = seconds / 3600 * gpus
    loss, outside = _loss(law, trainee, tokens)
    return CostPoint(
        tokens=tokens,
        flops=config.training_flops_per_token(stage.context) * tokens,
        days=seconds / SECONDS_PER_DAY,
        gpu_hours=hours,
        money=hours * gpu.price.value,
        loss=loss,
        outside=outside,
        fits=fits,
    )


@lru_cache(maxsize=64)
def _layout(config: ModelConfig, rows: int, gpus: int, gpu: GpuProfile) -> tuple[Layout, bool]:
    """Return the fastest layout that fits: rows at a time, activations kept or computed again."""
    stage = _stage_of(rows, rows * CONTEXT)
    fitting = []
    for checkpointing in (False, True):
        for micro in _halvings(rows // gpus):
            layout = Layout(gpus, micro_batch_rows=micro, activation_checkpointing=checkpointing)
            memory = stage_memory(config, layout, stage, counted_states(config, layout))
            if memory.total <= gpu.memory.value:
                fitting.append(layout)
    if not fitting:
        return Layout(gpus, micro_batch_rows=1, activation_checkpointing=True), False
    return min(fitting, key=lambda each: step_time(config, each, stage, gpu, gpu.mfu).total), True


def _loss(law: MoELaw | None, trainee: Trainee, tokens: float) -> tuple[float | None, bool]:
    if law is None:
        return None, False
    predicted = law.predict(
        active_params=trainee.config.active_params,
        tokens=tokens,
        num_experts=trainee.expert_equivalents,
    )
    return predicted.loss, bool(predicted.outside)


def _halvings(rows: int) -> list[int]:
    """Return `rows` and its halves as long as they are whole, and 1."""
    found = [rows]
    while found[-1] % 2 == 0:
        found.append(found[-1] // 2)
    return found if found[-1] == 1 else [*found, 1]


def _rows(tokens: float, gpus: int) -> int:
    """Return the rows of a batch, the same number on every GPU; a small run has small ones."""
    wanted = min(BATCH_TOKENS, tokens / LEAST_STEPS)
    return max(1, round(wanted / CONTEXT / gpus)) * gpus


def _stage_of(rows: int, tokens: float) -> Stage:
    """Return a pre-training stage of batches of `rows`."""
    return Stage(
        name="pretrain",
        purpose="to be priced",
        for_domains=(),
        tokens=max(round(tokens), rows * CONTEXT),
        context=CONTEXT,
        batch_tokens=rows * CONTEXT,
        mixture={"text": 1.0},
        lr=4e-4,
        schedule="cosine",
        warmup_steps=0,
        final_lr=0.1,
        capacity_factor=None,
    )
