"""A whole run on a cluster that is not here: memory, traffic, time and money of every stage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mobilemoe.config import ModelConfig
from mobilemoe.plan.cluster.activations import IMBALANCE
from mobilemoe.plan.cluster.gpu import GpuProfile
from mobilemoe.plan.cluster.layout import Layout, check_layout
from mobilemoe.plan.cluster.memory import (
    FRAMEWORK,
    Memory,
    States,
    counted_states,
    stage_memory,
)
from mobilemoe.plan.cluster.quantity import Quantity
from mobilemoe.plan.cluster.step_time import (
    EFFECTIVE_SHARE,
    LINK_EFFICIENCY,
    StepTime,
    step_time,
)
from mobilemoe.plan.cluster.traffic import Flow, flows
from mobilemoe.recipe import Recipe, Stage

# Counts what a rank of a layout holds for a model: by arithmetic, or on fake devices.
CountStates = Callable[[ModelConfig, Layout], States]
SECONDS_PER_DAY = 86_400.0


@dataclass(frozen=True)
class StagePlan:
    """One stage on the cluster. `tok_s` is over all GPUs while a step runs; `days` is wall time."""

    stage: Stage
    memory: Memory
    flows: tuple[Flow, ...]
    time: StepTime
    micro_rows: int
    micro_batches: int
    flops: float
    tok_s: float
    mfu: float
    days: float
    gpu_hours: float
    money: float


@dataclass(frozen=True)
class ClusterPlan:
    """Stages of a recipe on one layout; `inputs` are the numbers that it rests on."""

    recipe: Recipe
    layout: Layout
    gpu: GpuProfile
    states: States
    stages: tuple[StagePlan, ...]
    inputs: tuple[Quantity, ...]

    @property
    def days(self) -> float:
        """Wall time of all stages."""
        return sum(stage.days for stage in self.stages)

    @property
    def gpu_hours(self) -> float:
        """GPU-hours of all stages."""
        return sum(stage.gpu_hours for stage in self.stages)

    @property
    def money(self) -> float:
        """Price of all stages."""
        return sum(stage.money for stage in self.stages)

    @property
    def fullest(self) -> StagePlan:
        """The stage that needs most memory."""
        return max(self.stages, key=lambda stage: stage.memory.total)

    @property
    def fits(self) -> bool:
        """Whether every stage stays within the memory of the GPU."""
        return self.fullest.memory.total <= self.gpu.memory.value


def cluster_plan(
    recipe: Recipe,
    layout: Layout,
    gpu: GpuProfile,
    *,
    stage: str | None = None,
    price: float | None = None,
    mfu: float | None = None,
    count_states: CountStates = counted_states,
) -> ClusterPlan:
    """Return the plan of `recipe` on `layout`, whether or not it fits.

    `stage` plans one stage only; `price` per GPU-hour and `mfu` replace those of the profile.

    Raises:
        MobileMoEError: if there is no such stage, or experts or rows do not divide evenly over
            the GPUs.
    """
    planned = recipe.stages if stage is None else (recipe.stage(stage),)
    for each in planned:
        check_layout(recipe.model, layout, each)
    rate = gpu.mfu if mfu is None else _stated("mfu", mfu, gpu.mfu.unit)
    cost = gpu.price if price is None else _stated("price", price, gpu.price.unit)
    states = count_states(recipe.model, layout)
    stages = tuple(
        _stage_plan(recipe.model, layout, each, gpu, states, rate, cost) for each in planned
    )
    profile = tuple(q for q in gpu.quantities() if q.name not in (rate.name, cost.name))
    inputs = (*profile, rate, cost, LINK_EFFICIENCY, EFFECTIVE_SHARE, IMBALANCE, FRAMEWORK)
    return ClusterPlan(recipe, layout, gpu, states, stages, inputs)


def _stated(name: str, value: float, unit: str) -> Quantity:
    return Quantity(name, value, unit, "stated", "given on the command line")


def _stage_plan(
    config: ModelConfig,
    layout: Layout,
    stage: Stage,
    gpu: GpuProfile,
    states: States,
    mfu: Quantity,
    price: Quantity,
) -> StagePlan:
    time = step_time(config, layout, stage, gpu, mfu)
    seconds = stage.steps * time.total / EFFECTIVE_SHARE.value
    flops = config.training_flops_per_token(stage.context) * float(stage.tokens_per_step)
    gpu_hours = seconds / 3600 * layout.gpus
    return StagePlan(
        stage=stage,
        memory=stage_memory(config, layout, stage, states),
        flows=flows(config, layout, stage),
        time=time,
        micro_rows=layout.micro_rows(stage),
        micro_batches=layout.micro_batches(stage),
        flops=flops * stage.steps,
        tok_s=stage.tokens_per_step / time.total,
        mfu=mfu.value * time.compute / time.total,
        days=seconds / SECONDS_PER_DAY,
        gpu_hours=gpu_hours,
        money=gpu_hours * price.value,
    )
