"""What a plan says besides its numbers: where its time goes, and what other choices would cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from mobilemoe.errors import MobileMoEError
from mobilemoe.plan.cluster.plan import ClusterPlan, cluster_plan

MODEL_OF_TIME = (
    "A step takes as long as its arithmetic or its gathers and reductions, whichever is longer, "
    "plus what is waited for: rows on their way to experts, expert counts, the optimiser. Days "
    "are wall time with the share that checkpoints and restarts take."
)


def plan_notes(plan: ClusterPlan) -> tuple[str, ...]:
    """Return the notes on `plan`, most general first."""
    notes = [MODEL_OF_TIME]
    bound = [stage.stage.name for stage in plan.stages if stage.time.is_communication_bound]
    if bound:
        notes.append(
            f"The network is slower than the arithmetic in {', '.join(bound)}: more rows at a "
            "time (run.micro_batch_rows) mean fewer gathers per step."
        )
    mfu = next(quantity for quantity in plan.inputs if quantity.name == "mfu")
    if mfu.kind == "assumed":
        notes.append(
            f"Time and money follow from an assumed MFU of {mfu.value:.0%}: at half of it they "
            "about double. Measure a step on one such GPU and give --mfu."
        )
    notes += _expert_parallel_note(plan)
    return tuple(notes)


def _expert_parallel_note(plan: ClusterPlan) -> list[str]:
    """Say what the chosen degree costs against the fastest one, at the same MFU."""
    choices = list(expert_parallel_choices(plan))
    if len(choices) < 2:
        return []
    best = min((choice for choice in choices if choice.fits), key=_days, default=None)
    if best is None or _days(best) >= _days(plan) * 0.99:
        return []
    return [
        f"With expert_parallel {best.layout.expert_parallel} the run would take "
        f"{best.days:.3g} days instead of {plan.days:.3g} at the same MFU. What this leaves out: "
        "more rows per expert make larger products, which may be worth a higher MFU."
    ]


def _days(plan: ClusterPlan) -> float:
    return plan.days


def expert_parallel_choices(plan: ClusterPlan) -> Iterator[ClusterPlan]:
    """Yield `plan` with every degree of expert parallelism that can run, smallest first."""
    rates = {quantity.name: quantity.value for quantity in plan.inputs}
    for ep in range(1, max(1, plan.recipe.model.num_local_experts) + 1):
        try:
            layout = replace(plan.layout, expert_parallel=ep)
            yield cluster_plan(
                plan.recipe,
                layout,
                plan.gpu,
                stage=plan.stages[0].stage.name if len(plan.stages) == 1 else None,
                price=rates["price"],
                mfu=rates["mfu"],
            )
        except MobileMoEError:
            continue
