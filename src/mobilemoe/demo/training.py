"""One stage of the run: train, save, resume, score before and after."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from mobilemoe.atomic import atomic_write
from mobilemoe.config import ModelConfig
from mobilemoe.data import Dataset
from mobilemoe.demo.events import Advanced, Stopped, Watch
from mobilemoe.evaluate.heldout import HeldoutLoss, heldout_loss
from mobilemoe.model import MobileMoE
from mobilemoe.recipe import Stage
from mobilemoe.train import ExpertLoads, StepMetrics, Trainer, load_weights

SAVE_EVERY_SECONDS = 20.0
HELDOUT_DOMAINS = ("code", "knowledge", "math", "instruct")
CURVE_POINTS = 200


@dataclass(frozen=True)
class StageRun:
    """Where and from what one stage trains. `start` is the stage that comes before, if any."""

    stage: Stage
    folder: Path
    start: Path | None
    seed: int
    heldout_tokens: int


def run_stage(
    run: StageRun,
    config: ModelConfig,
    dataset: Dataset,
    watch: Watch,
    stopping: Callable[[], bool],
) -> dict[str, Any]:
    """Train the stage to its end and return its part of the report.

    Raises:
        Stopped: if `stopping()` became true; the state is saved.
        MobileMoEError: if training diverges or the disk refuses.
    """
    trainer = make_trainer(run, config, dataset)
    before = _before(run, trainer.model, dataset)
    trainer.resume(run.folder)
    log = run.folder / "metrics.jsonl"
    _keep_steps(log, trainer.step)
    _train(trainer, run, log, watch, stopping)
    losses = score(trainer.model, dataset, run.stage.context, run.heldout_tokens)
    return _part(run.stage, _read_log(log), before, domain_means(losses))


def make_trainer(run: StageRun, config: ModelConfig, dataset: Dataset) -> Trainer:
    """Return the trainer at step 0: fresh weights, or those of the stage before."""
    model = starting_model(run, config)
    stage = run.stage
    mixture = dataset.mixture(stage.mixture, stage.context, stage.batch_size, run.seed)
    return Trainer(model, stage, mixture.batch)


def starting_model(run: StageRun, config: ModelConfig) -> MobileMoE:
    """Return fresh weights drawn from the seed, or the trained ones of `run.start`."""
    model = MobileMoE(config)
    if run.start is None:
        return model.init_weights(torch.Generator().manual_seed(run.seed))
    return load_weights(model, run.start)


def score(model: MobileMoE, dataset: Dataset, context: int, tokens: int) -> dict[str, HeldoutLoss]:
    """Return the held-out loss per domain."""
    return {
        domain: heldout_loss(model, dataset.heldout_batches(domain, context, 8, tokens))
        for domain in HELDOUT_DOMAINS
    }


def domain_means(losses: Mapping[str, HeldoutLoss]) -> dict[str, float]:
    """Return nats per token of each domain."""
    return {domain: loss.mean for domain, loss in losses.items()}


def _before(run: StageRun, model: MobileMoE, dataset: Dataset) -> dict[str, float]:
    """Score the untouched start once and remember it for a resumed run."""
    path = run.folder / "heldout_before.json"
    if not path.exists():
        losses = score(model, dataset, run.stage.context, run.heldout_tokens)
        atomic_write(path, json.dumps(domain_means(losses)))
    values: dict[str, float] = json.loads(path.read_text())
    return values


def _train(
    trainer: Trainer, run: StageRun, log: Path, watch: Watch, stopping: Callable[[], bool]
) -> None:
    saved_at = time.monotonic()
    with log.open("a", encoding="utf-8") as file, _notes(log).open("a", encoding="utf-8") as notes:
        for event in trainer.run(run.folder):
            if isinstance(event, StepMetrics):
                file.write(json.dumps(asdict(event)) + "\n")
                watch(Advanced(run.stage.name, event.step, run.stage.steps, event, event.tok_s))
            elif not isinstance(event, ExpertLoads):
                notes.write(json.dumps({"event": type(event).__name__, **asdict(event)}) + "\n")
            done = trainer.step == run.stage.steps
            if done or stopping() or time.monotonic() - saved_at > SAVE_EVERY_SECONDS:
                file.flush()
                trainer.save(run.folder)
                saved_at = time.monotonic()
            if stopping() and not done:
                raise Stopped


def _notes(log: Path) -> Path:
    """Return where the guard's words stand: steps that were skipped, returns, alarms."""
    return log.with_name("guard.jsonl")


def _keep_steps(log: Path, step: int) -> None:
    """Drop the lines of steps that were not saved: they will be made again."""
    log.parent.mkdir(parents=True, exist_ok=True)
    text = log.read_text(encoding="utf-8") if log.exists() else ""
    lines = text.split("\n")[:-1]  # a killed run may have left half a line
    kept = [line for line in lines if json.loads(line)["step"] <= step]
    atomic_write(log, "".join(f"{line}\n" for line in kept))


def _read_log(log: Path) -> list[StepMetrics]:
    """Return the steps in order; one that was made twice, after going back, as it was made last."""
    lines = log.read_text(encoding="utf-8").splitlines()
    steps = [StepMetrics(**json.loads(line)) for line in lines]
    return sorted({metrics.step: metrics for metrics in steps}.values(), key=lambda m: m.step)


def _part(
    stage: Stage, steps: list[StepMetrics], before: dict[str, float], after: dict[str, float]
) -> dict[str, Any]:
    tokens = stage.steps * stage.tokens_per_step
    seconds = sum(metrics.seconds for metrics in steps)
    aims = stage.for_domains
    changes = ", ".join(f"{d} {before[d]:.2f} -> {after[d]:.2f}" for d in aims)
    return {
        "summary": f"held-out loss: {changes}",
        "name": stage.name,
        "purpose": stage.purpose,
        "for_domains": list(aims),
        "tokens": tokens,
        "steps": stage.steps,
        "seconds": seconds,
        "tok_s": tokens / seconds,
        "context": stage.context,
        "peak_lr": stage.lr,
        "dispatch": "dropless" if stage.capacity_factor is None else "drop-and-pad",
        "mixture": dict(stage.mixture),
        "curve": _curve(steps),
        "heldout_before": before,
        "heldout_after": after,
        "lowered": sum(after[d] for d in aims) < sum(before[d] for d in aims),
        "dropped_share": sum(m.dropped_share for m in steps) / len(steps),
    }


def _curve(steps: list[StepMetrics]) -> dict[str, list[float]]:
    """Average the steps into at most `CURVE_POINTS` points."""
    width = max(1, len(steps) // CURVE_POINTS)
    groups = [steps[i : i + width] for i in range(0, len(steps), width)]
    return {
        "tokens": [group[-1].tokens_seen for group in groups],
        "loss": [_mean(m.loss for m in group) for group in groups],
    }


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)
