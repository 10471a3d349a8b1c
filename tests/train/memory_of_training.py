"""Trains for two steps and prints, per case, by how much the process grew and what was planned.

Each case is a child of a process that has only imported things.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from mobilemoe.data import Batch
from mobilemoe.model import MobileMoE
from mobilemoe.plan.cluster import Layout
from mobilemoe.recipe import Recipe, Stage, load_recipe
from mobilemoe.train import Settings, Trainer
from mobilemoe.train.needs import cpu_memory
from mobilemoe.train.speedups import speed_up

STEPS = 2
CASES: dict[str, tuple[str, ...]] = {
    "pretrain": ("run.micro_batch_rows=8",),
    "midtrain": ("run.activation_checkpointing=true", "midtrain.batch_tokens=8192"),
    "qat": ("run.micro_batch_rows=2",),
}


def resident(field: str) -> int:
    """Bytes of this process in memory: now (VmRSS) or at most (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(field))


def train(recipe: Recipe, stage: Stage) -> None:
    """Take a few steps on noise."""
    model = MobileMoE(recipe.model).init_weights(torch.Generator().manual_seed(0))
    speed_up(model, recipe.run)
    shape = stage.batch_size, stage.context + 1

    def batches(step: int) -> Batch:
        ids = np.random.default_rng(step).integers(0, recipe.model.vocab_size, shape)
        return Batch(ids[:, :-1], ids[:, 1:], ("code",) * len(ids))

    short = replace(stage, tokens=STEPS * stage.tokens_per_step)
    list(Trainer(model, short, batches, Settings.of(recipe)).run())


def report(name: str) -> dict[str, object]:
    """Measure one case."""
    recipe = load_recipe("nano", CASES[name])
    stage = recipe.stage(name)
    before = resident("VmRSS")
    train(recipe, stage)
    planned = cpu_memory(recipe, stage, Layout.of(recipe, 1))
    grown = resident("VmHWM") - before
    return {"case": name, "grown": grown, "planned": planned.total, "parts": planned.parts}


if __name__ == "__main__":
    torch.set_num_threads(1)
    for case in CASES:
        if os.fork() == 0:
            print(json.dumps(report(case)), flush=True)
            os._exit(0)
        if os.wait()[1]:
            sys.exit(1)
