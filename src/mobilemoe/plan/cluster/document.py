"""A plan as one JSON document."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from mobilemoe.plan.cluster.notes import plan_notes
from mobilemoe.plan.cluster.plan import ClusterPlan, StagePlan


def plan_document(plan: ClusterPlan) -> dict[str, Any]:
    """Return `plan` as plain values; bytes are per GPU, communication per optimiser step."""
    return {
        "recipe": plan.recipe.name,
        "gpu": plan.gpu.name,
        "gpu_memory_bytes": plan.gpu.memory.value,
        "layout": asdict(plan.layout),
        "total_params": plan.recipe.model.total_params,
        "active_params": plan.recipe.model.active_params,
        "states": asdict(plan.states),
        "stages": [_stage(stage) for stage in plan.stages],
        "tokens": sum(stage.stage.tokens for stage in plan.stages),
        "days": plan.days,
        "gpu_hours": plan.gpu_hours,
        "money": plan.money,
        "inputs": [quantity.to_dict() for quantity in plan.inputs],
        "notes": list(plan_notes(plan)),
    }


def _stage(plan: StagePlan) -> dict[str, Any]:
    stage = plan.stage
    return {
        "name": stage.name,
        "tokens": stage.tokens,
        "context": stage.context,
        "batch_rows": stage.batch_size,
        "steps": stage.steps,
        "micro_batch_rows": plan.micro_rows,
        "micro_batches": plan.micro_batches,
        "memory_bytes": plan.memory.parts,
        "memory_total_bytes": plan.memory.total,
        "communication_bytes": [asdict(flow) for flow in plan.flows],
        "step_seconds": asdict(plan.time) | {"total": plan.time.total},
        "flops": plan.flops,
        "tok_s": plan.tok_s,
        "mfu": plan.mfu,
        "days": plan.days,
        "gpu_hours": plan.gpu_hours,
        "money": plan.money,
    }
