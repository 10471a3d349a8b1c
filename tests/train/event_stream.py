"""A synthetic run in memory and on disk: what the tests of journal, display and report read."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from pathlib import Path

from mobilemoe.train.events import (
    Alarm,
    ExpertLoads,
    RolledBack,
    StepMetrics,
    StepSkipped,
    TrainEvent,
)
from mobilemoe.train.journal import JOURNAL_FILE, Journal

DOMAINS = ("code", "knowledge", "math")
LEVELS = {"pretrain": (7.0, 2.6), "midtrain": (2.7, 2.3), "sft": (2.9, 1.9), "qat": (2.0, 1.95)}
LAYERS, EXPERTS = 4, 24


def step(
    number: int = 1, stage: str = "pretrain", loss: float = 2.5, **changes: object
) -> StepMetrics:
    """One step's metrics; any field can be changed."""
    return metrics(stage, number, loss, random.Random(number), **changes)


def metrics(
    stage: str, number: int, loss: float, draw: random.Random, **changes: object
) -> StepMetrics:
    """Plausible metrics around `loss`."""
    domains = (*DOMAINS, "instruct") if stage in ("sft", "qat") else DOMAINS
    values: dict[str, object] = {
        "stage": stage,
        "step": number,
        "tokens_seen": number * 2048,
        "loss": loss + draw.gauss(0, 0.05),
        "z_loss": 9.0,
        "lr": 3e-3 * min(1.0, number / 20) * (0.55 + 0.45 * math.cos(number / 100)),
        "grad_norm": math.exp(draw.gauss(-0.4, 0.25)),
        "dropped_share": 0.02 * math.exp(-number / 60) + 0.002 * draw.random(),
        "worst_load": 1.4 + 3 * math.exp(-number / 50) + 0.2 * draw.random(),
        "router_entropy": 0.97 - 0.05 * min(1.0, number / 150),
        "domain_loss": {name: loss + 0.3 * i - 0.3 for i, name in enumerate(domains)},
        "seconds": 0.2,
        "tok_s": 10_240.0 + draw.gauss(0, 300),
        "mfu": 0.31 + draw.gauss(0, 0.01),
    }
    return StepMetrics(**(values | changes))  # type: ignore[arg-type]


def events(stage: str, steps: int, seed: int = 0) -> Iterator[TrainEvent]:
    """A whole stage: a falling loss, loads that even out, skips, a rollback, an alarm."""
    draw = random.Random(f"{stage} {seed}")
    high, low = LEVELS[stage]
    weights = [[draw.lognormvariate(0, 0.9) for _ in range(EXPERTS)] for _ in range(LAYERS)]
    for number in range(1, steps + 1):
        share = number / steps
        loss = low + (high - low) * math.exp(-5 * share)
        if number == int(steps * 0.55):
            yield StepSkipped(stage, number, "loss is not finite", math.nan, math.inf, (3, 9), ())
            continue
        yield metrics(stage, number, loss, draw)
        if stage == "pretrain" and number == int(steps * 0.72):
            yield Alarm(stage, number, "collapse", "layer 2: expert 7 has 12.4 times the mean load")
        if stage == "midtrain" and number == int(steps * 0.8):
            yield RolledBack(stage, number, number - 5, "5 steps in a row were skipped")
            for again in range(number - 4, number + 1):
                yield metrics(stage, again, loss, draw)
        if number % 10 == 0:
            yield ExpertLoads(stage, number, loads(weights, 2.5 * share if steps > 1 else 0, draw))


def loads(
    weights: list[list[float]], balanced: float, draw: random.Random
) -> tuple[tuple[int, ...], ...]:
    """Counts per layer and expert that become even as `balanced` grows."""
    power = math.exp(-balanced)
    return tuple(
        tuple(int(1000 * w**power * draw.uniform(0.9, 1.1)) for w in layer) for layer in weights
    )


def write_run(folder: Path, steps: dict[str, int], heldout: bool = True) -> Path:
    """Write a run folder with these stages, as training leaves it."""
    folder.mkdir(parents=True, exist_ok=True)
    machine = {"cpu": "AMD EPYC 7B13", "cores": 2, "memory_gb": 8.3, "os": "Linux 6.1"}
    run = {"name": "nano-12mb", "recipe_id": "3f9ac2e1", "machine": machine}
    run["started"] = "2026-11-03T09:12:00+00:00"
    (folder / "run.json").write_text(json.dumps(run))
    (folder / "recipe.toml").write_text(
        'name = "nano-12mb"\nseed = 0\n\n[model]\npreset = "nano"\n'
    )
    now = 1.8e9
    for stage, count in steps.items():
        place = folder / "stages" / stage
        clock = iter(now + 0.21 * i for i in range(10**6))
        journal = Journal(place / JOURNAL_FILE, clock=lambda clock=clock: next(clock))
        for event in events(stage, count):
            journal.append(event)
        journal.close()
        now += 0.21 * count
        if heldout:
            high, low = LEVELS[stage]
            names = (*DOMAINS, "instruct")
            before = {name: high + 0.3 * i - 0.28 for i, name in enumerate(names)}
            after = {name: low + 0.3 * i - 0.24 for i, name in enumerate(names)}
            content = json.dumps({"before": before, "after": after})
            (place / "heldout.json").write_text(content)
    return folder
