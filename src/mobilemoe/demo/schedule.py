"""How many tokens each stage gets: from the minutes that are left and the speed of this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from statistics import median
from typing import Any

import torch

from mobilemoe.config import ModelConfig
from mobilemoe.data import Dataset
from mobilemoe.demo.settings import SHARES, Settings, affordable_tokens, stage_tokens
from mobilemoe.model import MobileMoE
from mobilemoe.train import Stage, Trainer

RESERVE_SECONDS = 75.0  # scoring between stages, export, evaluation, benchmark, report
SAFETY = 0.92  # the machine may slow down
WARMUP_STEPS, TIMED_STEPS = 2, 5


def make_schedule(
    settings: Settings,
    factories: Mapping[str, Callable[[int], Stage]],
    config: ModelConfig,
    dataset: Dataset,
) -> dict[str, Any]:
    """Return the tokens of every stage, once and for all: a resumed run keeps them."""
    if settings.tokens is not None:
        tokens = stage_tokens(settings.tokens)
        return {"tokens": tokens, "tok_s": {}, "summary": f"{settings.tokens:,} tokens as asked"}
    tok_s = {name: training_speed(factories[name](1), config, dataset) for name in SHARES}
    left = settings.started_at + 60 * settings.minutes - time.time()
    total = affordable_tokens(SAFETY * max(0.0, left - RESERVE_SECONDS), tok_s)
    summary = f"{total:,} tokens in the {left / 60:.1f} minutes that are left"
    return {"tokens": stage_tokens(total), "tok_s": tok_s, "summary": summary}


def training_speed(stage: Stage, config: ModelConfig, dataset: Dataset) -> float:
    """Return tokens per second of a few steps of `stage` on a throw-away model."""
    model = MobileMoE(config).init_weights(torch.Generator().manual_seed(0))
    mixture = dataset.mixture(stage.mixture, stage.context, stage.batch_size, seed=0)
    trainer = Trainer(model, _with_steps(stage), mixture.batch)
    seconds = [metrics.seconds for metrics in trainer.run()]
    return stage.tokens_per_step / median(seconds[WARMUP_STEPS:])


def _with_steps(stage: Stage) -> Stage:
    return replace(stage, steps=WARMUP_STEPS + TIMED_STEPS)
