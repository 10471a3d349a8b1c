"""How many tokens each stage gets: from the minutes that are left and the speed of this machine.

The speed is measured once before training and corrected by every finished stage, so that a
machine that slows down still ends in time. A stage's tokens are fixed when it begins and saved:
a resumed run keeps them.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

import torch

from mobilemoe.config import ModelConfig
from mobilemoe.data import Dataset
from mobilemoe.demo.settings import SHARES
from mobilemoe.model import MobileMoE
from mobilemoe.recipe import Stage
from mobilemoe.train import StepMetrics, Trainer

RESERVE_SECONDS = 100.0  # scoring between stages, export, evaluation, benchmark, report
SAFETY = 0.9  # the machine may slow down
WARMUP_STEPS, TIMED_STEPS = 2, 5


def measured_speeds(
    stages: Mapping[str, Stage], config: ModelConfig, dataset: Dataset
) -> dict[str, Any]:
    """Return tokens per second of every stage on this machine, now."""
    tok_s = {name: training_speed(stages[name], config, dataset) for name in SHARES}
    return {"tok_s": tok_s, "summary": f"{tok_s['pretrain']:,.0f} tokens/s in pre-training"}


def training_speed(stage: Stage, config: ModelConfig, dataset: Dataset) -> float:
    """Return tokens per second of a few steps of `stage` on a throw-away model."""
    model = MobileMoE(config).init_weights(torch.Generator().manual_seed(0))
    mixture = dataset.mixture(stage.mixture, stage.context, stage.batch_size, seed=0)
    trainer = Trainer(
        model,
        stage.with_tokens((WARMUP_STEPS + TIMED_STEPS) * stage.tokens_per_step),
        mixture.batch,
    )
    seconds = [event.seconds for event in trainer.run() if isinstance(event, StepMetrics)]
    return stage.tokens_per_step / median(seconds[WARMUP_STEPS:])


def remaining_tokens(
    seconds_left: float, tok_s: Mapping[str, float], finished: Mapping[str, float]
) -> dict[str, int]:
    """Split the time that is left over the stages that are not finished.

    `tok_s` is the speed measured before training, `finished` that of the stages that are done;
    the last of them says how much faster or slower the machine has become.
    """
    drift = 1.0
    for name, actual in finished.items():
        drift = actual / tok_s[name]
    speed = {name: drift * tok_s[name] for name in SHARES if name not in finished}
    per_token = sum(SHARES[name] / speed[name] for name in speed)
    usable = SAFETY * max(0.0, seconds_left - RESERVE_SECONDS)
    return {name: int(SHARES[name] * usable / per_token) for name in speed}
