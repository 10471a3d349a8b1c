"""Training steps of nano on this CPU: the plain PyTorch loop over experts, and ours.

    python benchmarks/train.py --steps 120 --threads 2

Terms. A step is batch, forward, backward, clipping, AdamW and the bias update of 2,048 tokens
(8 rows of 256) of the embedded corpus, dropless in both; `plain` is benchmarks/plain_training.py,
`ours` is `mobilemoe.train`; `plain_backwards` is the plain loop with its experts in the other
order. All start from the same weights and take the same batches, A B C A B C, in one process:
the ratio of both plain ones says what a ratio may be off by. `tok_s` is from the median step after
`WARM` warm ones; `share_of_peak` puts the model's FLOPs (three forward passes) over the fastest
float32 matrix product that torch reaches with these threads. `loss` holds the curves and how far
they are apart: benchmarks/loss_curves.py.
`--curves` takes the steps for `loss` alone and times nothing: the machine may be busy.

`experts` times forward and backward of one layer's routed experts alone, all ways in turn: one
product per expert (`loop`), `torch.nn.functional.grouped_mm`, and the native operation; with
equal loads, and with one expert that has ten times the load of each other.

Writes benchmarks/results/train.json; the last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from loss_curves import BACKWARDS, OURS, PLAIN, compare
from plain_training import PlainTrainer
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from mobilemoe.atomic import atomic_write
from mobilemoe.config import ModelConfig
from mobilemoe.data import build_dataset
from mobilemoe.kernels import native_kernels, swiglu_experts
from mobilemoe.model import MobileMoE
from mobilemoe.model.experts import experts_grouped_mm, experts_loop
from mobilemoe.profile.machine import this_machine, versions
from mobilemoe.recipe import Stage, load_recipe
from mobilemoe.train import Settings, StepMetrics, Trainer
from mobilemoe.train.peaks import measured_peak

RESULT = Path(__file__).parent / "results" / "train.json"
RECIPE = Path(__file__).parents[1] / "recipes" / "nano.toml"
WARM = 5  # steps that are not timed
PROFILED_STEPS, PROFILE_ROWS = 4, 16
ROUNDS = 15
OVERLOAD = 10  # of one expert, over each other one's load

Step = Callable[[], float]


def trainers(stage: Stage, data: Path, seed: int) -> dict[str, Step]:
    """Return the ways to take the next step; each returns its loss."""
    dataset = build_dataset(data)
    batches = dataset.mixture(stage.mixture, stage.context, stage.batch_size, seed).batch
    recipe = load_recipe(RECIPE)

    def model() -> MobileMoE:
        generator = torch.Generator().manual_seed(seed)
        return MobileMoE(recipe.model).init_weights(generator)

    settings = Settings.of(recipe)
    events = Trainer(model(), stage, batches, settings).run()
    ours = (event for event in events if isinstance(event, StepMetrics))
    plain = PlainTrainer(model(), stage, batches, settings)
    backwards = PlainTrainer(model(), stage, batches, settings, backwards=True)
    return {PLAIN: plain.step, OURS: lambda: next(ours).loss, BACKWARDS: backwards.step}


def race(steps: dict[str, Step], count: int) -> tuple[dict[str, list[float]], ...]:
    """Return seconds and losses of `count` steps each, in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    losses: dict[str, list[float]] = {name: [] for name in steps}
    for index in range(count):
        for name, step in steps.items():
            started = time.perf_counter()
            losses[name].append(step())
            seconds[name].append(time.perf_counter() - started)
        if index % 10 == 9:
            last = {name: round(1e3 * times[-1]) for name, times in seconds.items()}
            print(f"step {index + 1}: ms {last}", file=sys.stderr)
    return seconds, losses


def where_time_goes(step: Step) -> list[dict[str, Any]]:
    """Return the operations that take most of a step, by their own time."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(PROFILED_STEPS):
            step()
    rows = sorted(profiler.key_averages(), key=lambda row: -row.self_cpu_time_total)
    total = sum(row.self_cpu_time_total for row in rows)
    return [
        {
            "operation": row.key,
            "share": round(row.self_cpu_time_total / total, 4),
            "ms": round(row.self_cpu_time_total / 1e3 / PROFILED_STEPS, 3),
            "calls": row.count // PROFILED_STEPS,
        }
        for row in rows[:PROFILE_ROWS]
    ]


def loads(rows: int, experts: int, overload: int) -> tuple[int, ...]:
    """Return counts of `rows` in all, the first expert's `overload` times each other one's."""
    share = rows // (experts - 1 + overload)
    first = rows - share * (experts - 1) if overload > 1 else share
    counts = [first, *([share] * (experts - 1))]
    for index in range(rows - sum(counts)):
        counts[-1 - index] += 1
    return tuple(counts)


def expert_ways(config: ModelConfig, counts: tuple[int, ...]) -> Iterator[tuple[str, Step]]:
    """Yield each way to compute one layer's experts, forward and backward."""
    E, D, F = config.num_local_experts, config.hidden_size, config.intermediate_size
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int, scale: float = 1.0) -> Tensor:
        return (torch.randn(shape, generator=generator) * scale).requires_grad_()

    x_ND, grad_ND = normal(sum(counts), D), normal(sum(counts), D).detach()
    weights = normal(E, D, 2 * F, scale=D**-0.5), normal(E, F, D, scale=F**-0.5)
    ways = {"loop": experts_loop, "grouped_mm": experts_grouped_mm, "native": swiglu_experts}
    for name, way in ways.items():

        def step(way: Callable[..., Tensor] = way) -> float:
            torch.autograd.grad(way(x_ND, counts, *weights), (x_ND, *weights), grad_ND)
            return 0.0

        yield name, step


def experts_alone(config: ModelConfig, tokens: int, peak: float, rounds: int) -> dict[str, Any]:
    """Return milliseconds of each way with equal and with unequal loads."""
    rows = tokens * config.num_experts_per_tok
    flops = 3 * 6 * rows * config.hidden_size * config.intermediate_size
    result = {}
    for name, overload in (("balanced", 1), (f"one_expert_{OVERLOAD}x", OVERLOAD)):
        counts = loads(rows, config.num_local_experts, overload)
        seconds, _ = race(dict(expert_ways(config, counts)), rounds + 1)
        middle = {way: statistics.median(times[1:]) for way, times in seconds.items()}
        result[name] = {
            way: {
                "ms": round(1e3 * value, 3),
                "share_of_peak": round(flops / value / peak, 3),
                "ms_all": [round(1e3 * s, 3) for s in seconds[way][1:]],
            }
            for way, value in middle.items()
        }
    return result


def summary(seconds: list[float], tokens: int, flops_per_token: float, peak: float) -> Any:
    """Return what one way's steps come to."""
    timed = seconds[WARM:]
    middle = statistics.median(timed)
    return {
        "step_ms": round(1e3 * middle, 2),
        "tok_s": round(tokens / middle, 1),
        "share_of_peak": round(tokens * flops_per_token / middle / peak, 3),
        "step_ms_all": [round(1e3 * s, 2) for s in seconds],
    }


def about(arguments: argparse.Namespace, stage: Stage) -> dict[str, Any]:
    """Return what a result is of."""
    return {
        "benchmark": "train",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": asdict(this_machine()),
        "versions": versions(("mobilemoe", "torch")),
        "threads": arguments.threads,
        "proc_bind": os.environ.get("OMP_PROC_BIND", "default"),
        "kernel": native_kernels()[0],
        "model": load_recipe(RECIPE).name,
        "tokens_per_step": stage.tokens_per_step,
        "context": stage.context,
        "dispatch": "dropless",
    }


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the whole result."""
    config = load_recipe(RECIPE).model
    first = load_recipe(RECIPE).stage("pretrain")
    steps = arguments.steps + PROFILED_STEPS
    stage = replace(first.with_tokens(steps * first.tokens_per_step), capacity_factor=None)
    ways = trainers(stage, arguments.data, arguments.seed)
    result = about(arguments, stage)
    if arguments.curves:
        return result | {"loss": compare(race(ways, arguments.steps)[1])}
    peak = measured_peak("fp32", arguments.threads)
    seconds, losses = race(ways, arguments.steps)
    flops = config.training_flops_per_token(stage.context)
    each = {
        name: summary(times, stage.tokens_per_step, flops, peak) for name, times in seconds.items()
    }
    return result | {
        "peak_gflop_s": round(peak / 1e9, 1),
        "steps": each,
        "speedup": round(each[OURS]["tok_s"] / each[PLAIN]["tok_s"], 3),
        "speedup_of_backwards": round(each[BACKWARDS]["tok_s"] / each[PLAIN]["tok_s"], 3),
        "loss": compare(losses),
        "profile": {name: where_time_goes(ways[name]) for name in (PLAIN, OURS)},
        "experts": experts_alone(config, stage.tokens_per_step, peak, arguments.rounds),
    }


def headline(result: dict[str, Any]) -> dict[str, Any]:
    """Return the numbers of the last line."""
    loss = {name: value for name, value in result["loss"].items() if name != "curves"}
    if "steps" not in result:
        return {"benchmark": "train", "loss": loss}
    return {
        "benchmark": "train",
        "threads": result["threads"],
        "tok_s": {name: way["tok_s"] for name, way in result["steps"].items()},
        "share_of_peak": {name: way["share_of_peak"] for name, way in result["steps"].items()},
        "speedup": result["speedup"],
        "speedup_of_backwards": result["speedup_of_backwards"],
        "loss": loss,
        "experts_ms": {
            load: {way: numbers["ms"] for way, numbers in ways.items()}
            for load, ways in result["experts"].items()
        },
    }


def main() -> None:
    """Measure and write the result; exit status 1 when the loss curves differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--curves", action="store_true", help="the losses alone, untimed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, default=Path("runs/corpus"))
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    result = measure(arguments)
    atomic_write(arguments.out, json.dumps(result, indent=1) + "\n")
    print(json.dumps(headline(result)))
    sys.exit(0 if result["loss"]["same"] else 1)


if __name__ == "__main__":
    main()
