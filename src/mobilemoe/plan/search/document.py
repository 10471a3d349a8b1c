"""A plan as one document of plain values, for other programs."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any

from mobilemoe.plan.search.candidate import Candidate
from mobilemoe.plan.search.constraints import Constraints
from mobilemoe.plan.search.result import Plan, Sensitivity


def plan_document(plan: Plan) -> dict[str, Any]:
    """Return `plan` as plain values; `config` is a valid config.json."""
    return {
        "constraints": _constraints(plan.constraints),
        "config": plan.chosen.config.to_dict(),
        "chosen": candidate_document(plan.chosen),
        "reasons": [asdict(reason) for reason in plan.reasons],
        "confidence": list(plan.confidence),
        "notes": list(plan.notes),
        "funnel": [asdict(step) for step in plan.funnel],
        "front": [candidate_document(candidate) for candidate in plan.front],
        "ties": [candidate_document(candidate) for candidate in plan.ties],
        "sensitivity": [_change(change) for change in plan.sensitivity],
    }


def candidate_document(candidate: Candidate) -> dict[str, Any]:
    """Return the shape, the costs and the loss of a candidate."""
    shape, loss = candidate.shape, candidate.loss
    return {
        **asdict(shape),
        "num_local_experts": shape.routed_experts,
        "num_experts_per_tok": shape.top_k,
        "total_params": candidate.total_params,
        "active_params": candidate.active_params,
        "weight_bytes": candidate.weight_bytes,
        "kv_bytes": candidate.kv_bytes,
        "memory_bytes": candidate.memory_bytes,
        "flops_per_token": candidate.flops_per_token,
        "tokens": candidate.tokens,
        "training_flops": candidate.training_flops,
        "loss": None if loss is None else asdict(loss),
        "decode_tok_s": candidate.decode_tok_s,
        "ttft_s": candidate.ttft_s,
    }


def _constraints(constraints: Constraints) -> dict[str, Any]:
    """Return the constraints; the device by its name alone."""
    values = {field.name: getattr(constraints, field.name) for field in fields(constraints)}
    device = constraints.device
    return values | {"device": None if device is None else device.name}


def _change(change: Sensitivity) -> dict[str, Any]:
    chosen = change.chosen
    return {
        "change": change.change,
        "changes": change.changes,
        "feasible": chosen is not None,
        "chosen": None if chosen is None else candidate_document(chosen),
    }
