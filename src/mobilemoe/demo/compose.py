"""From the finished parts of a run to the one document that the page shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from mobilemoe.config import ModelConfig
from mobilemoe.demo.schema import SCHEMA_VERSION
from mobilemoe.demo.settings import Settings
from mobilemoe.plan import Budget, Design
from mobilemoe.profile.machine import this_machine, versions

FOUR_STAGES = ("pretrain", "midtrain", "sft", "qat")
TRAINING = (*FOUR_STAGES, "control")
PACKAGES = ("mobilemoe", "torch", "numpy", "tokenizers")


def design_part(budget: Budget, result: Design, minutes: float) -> dict[str, Any]:
    """Return the design as the report wants it, and the config to train."""
    return {
        "config": result.config.to_dict(),
        "budget": {
            "memory_bytes": budget.memory_bytes,
            "context": budget.context,
            "flops_per_token": budget.flops_per_token,
            "train_minutes": minutes,
        },
        "funnel": [asdict(step) for step in result.funnel],
        "chosen": shape("nano MobileMoE", result.config),
        "twin": shape("dense twin", result.twin),
        "notes": list(result.notes),
        "summary": f"{result.config.total_params / 1e6:.2f}M parameters, "
        f"{result.config.active_params / 1e6:.2f}M active",
    }


def shape(name: str, config: ModelConfig) -> dict[str, Any]:
    """Return an architecture with what it costs."""
    keys = (
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "num_local_experts",
        "num_experts_per_tok",
        "intermediate_size",
        "intermediate_size_mlp",
        "vocab_size",
        "total_params",
        "active_params",
        "flops_per_token",
    )
    return (
        {"name": name}
        | {key: getattr(config, key) for key in keys}
        | {
            "weight_bytes_int4": config.weight_bytes("int4"),
            "weight_bytes_bf16": config.weight_bytes("bf16"),
            "kv_bytes_per_token": config.kv_bytes_per_token("int8"),
        }
    )


def compose_report(
    parts: Mapping[str, Mapping[str, Any]],
    settings: Settings,
    started: str,
    total_seconds: float,
) -> dict[str, Any]:
    """Return the whole report of a finished run."""
    evaluate, speed = parts["evaluate"], parts["bench"]
    machine = asdict(this_machine()) | {"instruction_set": speed["instruction_set"]}
    design = ("budget", "funnel", "chosen", "twin", "notes")
    return {
        "schema": SCHEMA_VERSION,
        "title": "From a memory budget to a running mixture of experts",
        "command": settings.command,
        "seed": settings.seed,
        "started": started,
        "seconds": _seconds(parts) | {"total": total_seconds},
        "machine": machine,
        "versions": versions(PACKAGES),
        "design": {key: parts["design"][key] for key in design},
        "data": {key: parts["data"][key] for key in ("sha256", "vocab_size", "domains")},
        "stages": [_stage(parts[name]) for name in FOUR_STAGES],
        "quantization": evaluate["quantization"],
        "experts": evaluate["experts"],
        "files": parts["export"]["files"],
        "parity": evaluate["parity"],
        "speed": _without(speed, "summary", "wall_seconds"),
        "samples": parts["samples"]["samples"],
        "warnings": warnings(parts),
    }


def warnings(parts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Say plainly what did not go as it should."""
    found = []
    for name in FOUR_STAGES:
        if not parts[name]["lowered"]:
            aims = ", ".join(parts[name]["for_domains"])
            found.append(f"{name} did not lower the held-out loss on what it is for ({aims}).")
    parity = parts["evaluate"]["parity"]
    if parity["relative_error"] > 1e-4:
        error = parity["relative_error"]
        found.append(f"The engine's exact mode differs from torch by {error:.1e} relative.")
    for name, sizes in parts["export"]["files"].items():
        if sizes["planned_tensor_bytes"] != sizes["tensor_bytes"]:
            found.append(f"The {name} file is not as large as planned.")
    return found


def _seconds(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    wall = {name: float(part["wall_seconds"]) for name, part in parts.items()}
    names = ("design", "data", *FOUR_STAGES, "evaluate", "bench")
    return {name: wall[name] for name in names}


def _stage(part: Mapping[str, Any]) -> dict[str, Any]:
    return _without(part, "wall_seconds", "summary")


def _without(part: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in part.items() if key not in keys}
