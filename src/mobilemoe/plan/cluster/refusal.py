"""A plan that does not fit is refused with a knob that mends it: tried, and its result stated."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain

from mobilemoe.config import ModelConfig
from mobilemoe.errors import MobileMoEError
from mobilemoe.plan.cluster.gpu import gpu_profile, known_gpus
from mobilemoe.plan.cluster.layout import Layout, check_layout
from mobilemoe.plan.cluster.memory import counted_states, stage_memory
from mobilemoe.plan.cluster.plan import ClusterPlan
from mobilemoe.recipe import Stage

MOST_GPUS = 65_536  # the largest cluster that is proposed


@dataclass(frozen=True)
class Knob:
    """One change: how it is written on the command line, and what each GPU holds then."""

    setting: str
    layout: Layout
    total: int


def require_fit(plan: ClusterPlan) -> None:
    """Return if every stage of `plan` fits its GPU.

    Raises:
        MobileMoEError: saying which stage needs how much too much, which part dominates, and
            the first change that makes all stages fit.
    """
    if plan.fits:
        return
    fullest, limit = plan.fullest, plan.gpu.memory.value
    memory = fullest.memory
    raise MobileMoEError(
        f"{plan.recipe.name} on {plan.layout.gpus} x {plan.gpu.name}: {fullest.stage.name} needs "
        f"{_gb(memory.total)} per GPU, {_gb(memory.total - limit)} more than the {_gb(limit)} "
        f"there are; the largest part is {memory.dominant}, {_gb(memory.parts[memory.dominant])}",
        hint=_hint(plan, limit),
    )


def _hint(plan: ClusterPlan, limit: float) -> str:
    for knob in _knobs(plan):
        if knob.total <= limit:
            return f"{knob.setting}: then {_gb(knob.total)} of {_gb(limit)} per GPU"
    larger = _larger_gpu(plan)
    if larger:
        return larger
    return "no setting makes it fit: take a smaller model or a shorter context"


def _larger_gpu(plan: ClusterPlan) -> str:
    needed = plan.fullest.memory.total
    profiles = sorted((gpu_profile(name).memory.value, name) for name in known_gpus())
    for memory, name in profiles:
        if needed <= memory:
            return f"--gpu {name}: then {_gb(needed)} of {_gb(memory)} per GPU"
    return ""


def _knobs(plan: ClusterPlan) -> Iterator[Knob]:
    """Yield changes that can run: those that cost no GPU first, then the fewest more GPUs."""
    model, stages = plan.recipe.model, tuple(stage.stage for stage in plan.stages)
    yield from _working(model, stages, _settings(model, stages, plan.layout))
    for text, larger in _more_gpus(plan.layout):
        joined = ((f"{setting} {text}", new) for setting, new in _settings(model, stages, larger))
        yield from _working(model, stages, chain([(text, larger)], joined))


Stages = tuple[Stage, ...]
Change = tuple[str, Layout]


def _working(model: ModelConfig, stages: Stages, changes: Iterable[Change]) -> Iterator[Knob]:
    for setting, layout in changes:
        try:
            for stage in stages:
                check_layout(model, layout, stage)
        except MobileMoEError:
            continue
        states = counted_states(model, layout)
        memories = [stage_memory(model, layout, stage, states) for stage in stages]
        yield Knob(setting, layout, max(memory.total for memory in memories))


def _settings(model: ModelConfig, stages: Stages, layout: Layout) -> Iterator[Change]:
    """Yield single settings, the cheapest first, then several of them."""
    yield from _checkpointing(layout)
    yield from _fewer_rows(stages, layout)
    yield from _more_expert_parallel(model, layout)
    checkpointed = list(_checkpointing(layout)) or [("", layout)]
    for first, saving in checkpointed:
        yield from _after(first, _fewer_rows(stages, saving))
        yield from _after(first, _more_expert_parallel(model, saving))
        for rows, single in list(_fewer_rows(stages, saving))[-1:]:
            joined = f"{first} {rows}".strip()
            yield from _after(joined, _more_expert_parallel(model, single))


def _after(first: str, changes: Iterable[Change]) -> Iterator[Change]:
    for setting, layout in changes:
        yield f"{first} {setting}".strip(), layout


def _checkpointing(layout: Layout) -> Iterator[Change]:
    if not layout.activation_checkpointing:
        changed = replace(layout, activation_checkpointing=True)
        yield "--set run.activation_checkpointing=true", changed


def _fewer_rows(stages: Stages, layout: Layout) -> Iterator[Change]:
    rows = max((layout.micro_rows(stage) for stage in stages), default=1)
    for fewer in range(rows - 1, 0, -1):
        yield f"--set run.micro_batch_rows={fewer}", replace(layout, micro_batch_rows=fewer)


def _more_expert_parallel(model: ModelConfig, layout: Layout) -> Iterator[Change]:
    for ep in range(layout.expert_parallel + 1, model.num_local_experts + 1):
        try:
            changed = replace(layout, expert_parallel=ep)
        except MobileMoEError:
            continue
        yield f"--set parallel.expert_parallel={ep}", changed


def _more_gpus(layout: Layout) -> Iterator[Change]:
    gpus = layout.gpus * 2
    while gpus <= MOST_GPUS:
        try:
            yield f"--gpus {gpus}", replace(layout, gpus=gpus)
        except MobileMoEError:
            return
        gpus *= 2


def _gb(size: float) -> str:
    return f"{size / 1e9:.1f} GB"
