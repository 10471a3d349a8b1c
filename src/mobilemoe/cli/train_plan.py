"""`mobilemoe train RECIPE --dry-run`: the cluster that is not here, as tables or one document."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mobilemoe.cli.output import print_json, print_table
from mobilemoe.cli.units import amount, count

if TYPE_CHECKING:
    from mobilemoe.plan.cluster import ClusterPlan, Quantity, StagePlan
    from mobilemoe.plan.cluster.plan import CountStates
    from mobilemoe.recipe import Recipe

Row = tuple[str, ...]


def show_plan(
    recipe: Recipe,
    gpus: int,
    gpu: str,
    *,
    gpus_per_node: int = 8,
    stage: str | None = None,
    price: float | None = None,
    mfu: float | None = None,
    as_json: bool = False,
) -> None:
    """Print the plan of `recipe`, or of one stage, on `gpus` GPUs of the kind `gpu`, or refuse it.

    `price` per GPU-hour and `mfu` replace the profile's. A plan that does not fit shows its
    memory before it is refused; with `as_json` nothing.

    Raises:
        MobileMoEError: if the GPU is unknown, the layout cannot run, or the memory is too small.
    """
    from mobilemoe.plan.cluster import Layout, cluster_plan, gpu_profile, require_fit
    from mobilemoe.plan.cluster.document import plan_document

    layout, profile = Layout.of(recipe, gpus, gpus_per_node), gpu_profile(gpu)
    plan = cluster_plan(recipe, layout, profile, stage=stage, price=price, mfu=mfu)
    if not plan.fits and not as_json:
        _print_memory(plan)
    require_fit(plan)
    counted = _count_states()
    plan = cluster_plan(
        recipe, layout, profile, stage=stage, price=price, mfu=mfu, count_states=counted
    )
    if as_json:
        print_json(plan_document(plan))
    else:
        _print_memory(plan)
        _print_rest(plan)


def _count_states() -> CountStates:
    """Count on fake devices, which takes seconds, where PyTorch is there; elsewhere by formula."""
    try:
        from mobilemoe.train.fake_cluster import faked_states
    except ImportError:
        from mobilemoe.plan.cluster import counted_states

        return counted_states
    return faked_states


def _print_memory(plan: ClusterPlan) -> None:
    layout, model = plan.layout, plan.recipe.model
    print(
        f"{plan.recipe.name}: {count(model.total_params)} parameters, "
        f"{count(model.active_params)} per token, on {layout.gpus} x {plan.gpu.name}, "
        f"{layout.node_gpus} per node, expert_parallel {layout.expert_parallel}, "
        f"{layout.precision}"
        + (", activation checkpointing" if layout.activation_checkpointing else "")
    )
    names = list(dict.fromkeys(part for s in plan.stages for part in s.memory.parts))
    rows = [
        (part, *(_bytes(stage.memory.parts.get(part, 0)) for stage in plan.stages))
        for part in names
    ]
    rows.append(("total", *(_bytes(stage.memory.total) for stage in plan.stages)))
    rows.append(("of the GPU", *(_share(plan, stage) for stage in plan.stages)))
    print_table("Memory per GPU", ("part", *_stages(plan)), rows)
    print(f"Parameters, gradients and moments counted by {plan.states.source}.")


def _print_rest(plan: ClusterPlan) -> None:
    from mobilemoe.plan.cluster.notes import plan_notes

    if any(stage.flows for stage in plan.stages):
        title = "Communication per GPU and step: inside the node + over the network"
        print_table(title, ("kind", *_stages(plan)), _flow_rows(plan))
    header = ("", *_stages(plan), "all")
    print_table("Time and money", header, _time_rows(plan))
    inputs = [(q.name, _value(q), q.kind, q.source) for q in plan.inputs]
    print_table("What this rests on", ("input", "value", "kind", "source"), inputs)
    for note in plan_notes(plan):
        print(f"- {note}")


def _flow_rows(plan: ClusterPlan) -> list[Row]:
    kinds = list(dict.fromkeys(flow.kind for stage in plan.stages for flow in stage.flows))
    rows = []
    for kind in kinds:
        cells = []
        for stage in plan.stages:
            flow = next(flow for flow in stage.flows if flow.kind == kind)
            cells.append(f"{_bytes(flow.node_bytes)} + {_bytes(flow.network_bytes)}")
        rows.append((kind, *cells))
    return rows


def _time_rows(plan: ClusterPlan) -> list[Row]:
    def row(title: str, cell: Callable[[StagePlan], str], total: str = "") -> Row:
        return (title, *(cell(stage) for stage in plan.stages), total)

    tokens = sum(stage.stage.tokens for stage in plan.stages)
    flops = sum(stage.flops for stage in plan.stages)
    return [
        row("tokens", lambda s: f"{s.stage.tokens:.3g}", f"{tokens:.4g}"),
        row("context", lambda s: f"{s.stage.context:,}"),
        row("steps", lambda s: f"{s.stage.steps:,}"),
        row("rows at a time x times", lambda s: f"{s.micro_rows} x {s.micro_batches}"),
        row("FLOPs", lambda s: f"{s.flops:.3g}", f"{flops:.3g}"),
        row("arithmetic, ms", lambda s: _ms(s.time.compute + s.time.recompute)),
        row("gathers and reductions, ms", lambda s: _ms(s.time.exchange)),
        row("all-to-all, ms", lambda s: _ms(s.time.all_to_all)),
        row("counts and optimiser, ms", lambda s: _ms(s.time.counts + s.time.optimiser)),
        row("step, ms", lambda s: _ms(s.time.total)),
        row("tokens/s", lambda s: f"{s.tok_s:,.0f}"),
        row("MFU", lambda s: f"{s.mfu:.1%}"),
        row("wall time", lambda s: _duration(s.days), _duration(plan.days)),
        row("GPU-hours", lambda s: _number(s.gpu_hours), _number(plan.gpu_hours)),
        row("money, $", lambda s: _number(s.money), _number(plan.money)),
    ]


def _value(quantity: Quantity) -> str:
    value, unit = quantity.value, quantity.unit
    return amount(value, unit) if value >= 1e4 else f"{value:g} {unit}"


def _stages(plan: ClusterPlan) -> tuple[str, ...]:
    return tuple(stage.stage.name for stage in plan.stages)


def _share(plan: ClusterPlan, stage: StagePlan) -> str:
    return f"{stage.memory.total / plan.gpu.memory.value:.0%}"


def _bytes(size: float) -> str:
    return "0" if size == 0 else amount(round(size), "B")


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


def _duration(days: float) -> str:
    for unit, length in (("days", 1.0), ("hours", 24.0), ("minutes", 1440.0)):
        if days * length >= 1:
            return f"{days * length:.3g} {unit}"
    return f"{days * 86_400:.3g} seconds"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:,.1f}"
