"""A synthetic report: plausible numbers that nobody measured, for tests of the page only."""

from __future__ import annotations

import math
import random
from typing import Any

DOMAINS = ("code", "knowledge", "math", "instruct")
LEVEL = {"code": 2.31, "knowledge": 3.42, "math": 2.88, "instruct": 3.05}


def synthetic_report() -> dict[str, Any]:
    """Return a complete report with invented values; the same at every call."""
    stages = _stages()
    return {
        "schema": 1,
        "title": "A small mixture of experts, from a budget to a device (synthetic example)",
        "command": "mobilemoe demo --budget 3MB --minutes 12 --seed 7 --out runs/demo",
        "seed": 7,
        "started": "2026-11-23T16:20:05+00:00",
        "seconds": {
            "design": 0.42,
            "data": 21.7,
            **{stage["name"]: stage["seconds"] for stage in stages},
            "evaluate": 64.2,
            "bench": 41.9,
            "total": 862.4,
        },
        "machine": {
            "cpu": "Synthetic CPU @ 2.70GHz",
            "cores": 2,
            "memory_gb": 15.6,
            "os": "Linux 6.1 (Debian 12)",
            "instruction_set": "avx512-vnni",
        },
        "versions": {
            "mobilemoe": "0.1.0",
            "python": "3.11.7",
            "torch": "2.13.0+cpu",
            "numpy": "2.4.0",
            "tokenizers": "0.22.1",
        },
        "design": _design(),
        "data": {
            "sha256": "5e" * 32,
            "vocab_size": 4096,
            "domains": {domain: _domain(index) for index, domain in enumerate(DOMAINS)},
        },
        "stages": stages,
        "quantization": _quantization(),
        "experts": _experts(),
        "files": {
            "bf16": _file(14_092_000, 10_344),
            "int4": _file(3_155_200, 13_912),
        },
        "parity": {
            "tokens": 512,
            "relative_error": 3.1e-07,
            "max_abs_error": 8.6e-06,
            "int8_median_cosine": 0.99987,
            "argmax_agreement": 0.986,
        },
        "speed": _speed(),
        "samples": _samples(),
        "warnings": ["The dense twin was not trained in this run; it stands for speed only."],
    }


def _file(tensors: int, header: int) -> dict[str, int]:
    return {
        "planned_tensor_bytes": tensors,
        "tensor_bytes": tensors,
        "header_bytes": header,
        "file_bytes": tensors + header,
    }


def _domain(index: int) -> dict[str, int]:
    return {
        "documents": 1210 + 310 * index,
        "bytes": 9_400_000 - 2_100_000 * index,
        "train_tokens": 2_730_000 - 610_000 * index,
        "heldout_tokens": 41_000 - 7_000 * index,
    }


def _design() -> dict[str, Any]:
    steps = [
        ("All shapes of the grid", "widths 96 to 320, depths 3 to 12, 1 to 120 experts", 12_960),
        ("Fits in memory", "INT4 weights + int8 KV cache at 512 tokens within 3.0 MB", 2_214),
        ("Fast enough", "at most 2.4 MFLOPs per token", 611),
        ("Trains in time", "at least 6 tokens per active parameter in 10 minutes", 138),
        ("Quantises cleanly", "every width a multiple of 32", 52),
        ("Lowest predicted loss", "scaling law, extrapolated; ties go to the smaller", 1),
    ]
    return {
        "budget": {
            "memory_bytes": 3_300_000,
            "context": 512,
            "flops_per_token": 2_400_000,
            "train_minutes": 10.0,
        },
        "funnel": [{"step": step, "rule": rule, "left": left} for step, rule, left in steps],
        "chosen": _moe_shape(),
        "twin": _twin_shape(),
        "notes": ["The law was fitted on models 100 times larger; its ranking here is a guess."],
    }


def _moe_shape() -> dict[str, Any]:
    return {
        "name": "nano MoE",
        "hidden_size": 128,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "num_local_experts": 60,
        "num_experts_per_tok": 4,
        "intermediate_size": 64,
        "intermediate_size_mlp": 256,
        "vocab_size": 4096,
        "total_params": 7_046_000,
        "active_params": 1_541_000,
        "weight_bytes_int4": 3_155_200,
        "weight_bytes_bf16": 14_092_000,
        "kv_bytes_per_token": 512,
        "flops_per_token": 3_082_000,
    }


def _twin_shape() -> dict[str, Any]:
    return _moe_shape() | {
        "name": "dense twin",
        "hidden_size": 256,
        "num_hidden_layers": 7,
        "num_attention_heads": 4,
        "num_local_experts": 0,
        "num_experts_per_tok": 0,
        "intermediate_size": 0,
        "intermediate_size_mlp": 1056,
        "total_params": 7_050_000,
        "active_params": 7_050_000,
        "weight_bytes_int4": 3_161_088,
        "weight_bytes_bf16": 14_100_000,
        "flops_per_token": 14_100_000,
        "kv_bytes_per_token": 896,
    }


def _stages() -> list[dict[str, Any]]:
    plan = [
        ("pretrain", "Language and facts from everything", ["code", "knowledge", "math"], 9.2e6),
        ("midtrain", "More code and mathematics, longer context", ["code", "math"], 2.1e6),
        ("sft", "Follow instructions", ["instruct"], 0.6e6),
        ("qat", "Recover what INT4 costs", ["code", "knowledge", "math", "instruct"], 0.7e6),
    ]
    steps = [-5.2, -0.17, 0.06, -0.03], [-4.6, 0.05, 0.09, -0.02]
    steps += [-4.9, -0.22, 0.07, -0.02], [-4.1, -0.02, -0.61, 0.03]
    now = {domain: LEVEL[domain] - delta[0] for domain, delta in zip(DOMAINS, steps, strict=True)}
    stages = []
    for index, (name, purpose, meant, tokens) in enumerate(plan):
        after = {d: now[d] + steps[row][index] for row, d in enumerate(DOMAINS)}
        stages.append(_stage(name, purpose, meant, int(tokens), now, after))
        now = after
    stages[3]["lowered"] = False
    return stages


def _stage(
    name: str,
    purpose: str,
    meant: list[str],
    tokens: int,
    before: dict[str, float],
    after: dict[str, float],
) -> dict[str, Any]:
    noise = random.Random(name)
    start = sum(before[d] for d in meant) / len(meant)
    end = sum(after[d] for d in meant) / len(meant)
    count = max(30, tokens // 40_000)
    fall = [math.exp(-7 * i / count) for i in range(count)]
    curve = [end + (start - end) * f + noise.gauss(0, 0.05) for f in fall]
    return {
        "name": name,
        "purpose": purpose,
        "for_domains": meant,
        "tokens": tokens,
        "steps": tokens // 4096,
        "seconds": tokens / 17_400,
        "tok_s": 17_400.0,
        "context": 256 if name == "pretrain" else 512,
        "peak_lr": 3e-3 if name == "pretrain" else 6e-4,
        "dispatch": "drop-and-pad" if name == "pretrain" else "dropless",
        "mixture": {"code": 0.4, "knowledge": 0.35, "math": 0.2, "instruct": 0.05},
        "curve": {"tokens": [tokens * i / (count - 1) for i in range(count)], "loss": curve},
        "heldout_before": dict(before),
        "heldout_after": dict(after),
        "lowered": True,
        "dropped_share": 0.0123 if name == "pretrain" else 0.0,
    }


def _quantization() -> dict[str, Any]:
    forms = [
        ("BF16", "after SFT, before any rounding", 1.0),
        ("PTQ INT4", "the same weights, rounded", 1.118),
        ("QAT INT4", "trained on with rounding in the loop", 1.021),
        ("control BF16", "trained on over the same tokens without rounding", 0.985),
        ("control PTQ INT4", "the control, rounded", 1.094),
    ]
    base = {domain: math.exp(LEVEL[domain] - 0.1) for domain in DOMAINS}
    mean = math.exp(sum(math.log(value) for value in base.values()) / 4)
    rows = [
        {
            "name": name,
            "note": note,
            "perplexity": {"mean": mean * factor}
            | {d: base[d] * (1 + (factor - 1) * (0.7 + 0.2 * i)) for i, d in enumerate(DOMAINS)},
        }
        for name, note, factor in forms
    ]
    seeds = [
        {
            "seed": seed,
            "control_bf16": mean * (0.985 + drift),
            "control_ptq": mean * (1.094 + 2 * drift),
            "qat": mean * (1.021 + drift),
        }
        for seed, drift in ((7, 0.0), (8, 0.011), (9, -0.008))
    ]
    verdict = "QAT recovers 83% of what rounding costs, against a control with the same tokens."
    return {"heldout_tokens": 122_000, "rows": rows, "seeds": seeds, "verdict": verdict}


def _experts() -> dict[str, Any]:
    noise = random.Random("experts")
    share = []
    for layer in range(4):
        rows = []
        for domain in range(3):
            use = [noise.gammavariate(3.0, 1.0) for _ in range(60)]
            for expert in range(60):
                if expert % 5 == domain:
                    use[expert] *= 1 + 1.6 * layer
            rows.append([value / sum(use) for value in use])
        share.append(rows)
    reading = "Specialisation grows with depth: in layer 3 one expert in five prefers one domain."
    return {"domains": ["code", "knowledge", "math"], "share": share, "reading": reading}


def _speed() -> dict[str, Any]:
    noise = random.Random("speed")

    def rounds(middle: float) -> list[float]:
        return [middle * (1 + noise.gauss(0, 0.03)) for _ in range(5)]

    def model(name: str, scale: float, active: int, rss: float, size: int) -> dict[str, Any]:
        return {
            "name": name,
            "ttft_ms": rounds(41.0 / scale),
            "prefill_tok_s": rounds(6200 * scale),
            "decode_tok_s": rounds(1900 * scale),
            "peak_rss_mib": rss,
            "weight_bytes_int4": size,
            "active_params": active,
            "trained": name == "MoE",
        }

    return {
        "rounds": 5,
        "threads": 2,
        "instruction_set": "avx512-vnni",
        "prompt_tokens": 256,
        "new_tokens": 128,
        "models": [
            model("MoE", 1.0, 1_541_000, 21.4, 3_155_200),
            model("dense twin", 0.44, 7_050_000, 21.9, 3_161_088),
        ],
    }


def _samples() -> list[dict[str, str]]:
    code = '    """Return n factorial."""\n    if n < 2:\n        return 1\n    return n * '
    return [
        {"kind": "completion", "prompt": "def factorial(n):\n", "text": code + "factorial(n - 1)"},
        {"kind": "completion", "prompt": "The tuple type is", "text": " an immutable sequence."},
        {"kind": "chat", "prompt": "What is 2 + 2 < 5 & why?", "text": "2 + 2 is 4, so yes."},
    ]
