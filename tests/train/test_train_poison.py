"""Poisoned batches at twenty places: the run ends where it would have ended without them.

The texts are noise with structure: the next id is one of eight, so the loss has a floor of
log 8 nats that no model gets below, and 0.5 % of it means something.
"""

from __future__ import annotations

import math
import random
from dataclasses import replace
from functools import cache
from statistics import fmean

import numpy as np
import pytest
import torch
from crash_training import SMALL
from poison import KINDS, Kind, poison
from train_support import stage

from mobilemoe.data import Batch
from mobilemoe.model import MobileMoE
from mobilemoe.recipe import Stage
from mobilemoe.train import StepMetrics, StepSkipped, Trainer
from mobilemoe.train.loss import cross_entropy

STEPS, ROWS, CONTEXT, CHOICES = 400, 8, 24, 8
POISONED = 20
TOLERANCE = 0.005


def noise(step: int) -> Batch:
    """Chains in which id i is followed by one of `CHOICES` ids, all equally likely."""
    generator = np.random.default_rng([7, step])
    ids = np.empty((ROWS, CONTEXT + 1), np.int64)
    ids[:, 0] = generator.integers(0, SMALL.vocab_size, ROWS)
    for place in range(CONTEXT):
        jump = generator.integers(0, CHOICES, ROWS)
        ids[:, place + 1] = (5 * ids[:, place] + 7 * jump) % SMALL.vocab_size
    return Batch(ids[:, :-1], ids[:, 1:], ("code",) * ROWS)


def long_stage() -> Stage:
    """A stage that gets close to the floor."""
    tokens = ROWS * CONTEXT
    return replace(
        stage(), tokens=tokens * STEPS, context=CONTEXT, batch_tokens=tokens, warmup_steps=10
    )


@torch.no_grad()
def heldout(model: MobileMoE) -> float:
    """Mean loss over batches that no run trains on."""
    losses = []
    for step in range(10**6, 10**6 + 8):
        batch = noise(step)
        h_BTD = model.hidden(torch.from_numpy(batch.ids_BT))
        targets_N = torch.from_numpy(batch.targets_BT).flatten()
        losses.append(
            float(cross_entropy(h_BTD.flatten(0, 1), model.head_weight, targets_N).each_N.mean())
        )
    return fmean(losses)


@cache
def trained(kind: Kind | None) -> tuple[float, tuple[int, ...]]:
    """Held-out loss at the end, and the positions that were skipped."""
    model = MobileMoE(SMALL).init_weights(torch.Generator().manual_seed(0))
    trainer = Trainer(model, long_stage(), noise)
    if kind is not None:
        poison(trainer, positions(), kind)
    events = list(trainer.run())
    skipped = tuple(event.step - 1 for event in events if isinstance(event, StepSkipped))
    assert len([e for e in events if isinstance(e, StepMetrics)]) == STEPS - len(skipped)
    trainer.step = -1  # no position that is poisoned
    return heldout(model), skipped


def positions() -> frozenset[int]:
    """The first step, the last one, two in a row, and the rest anywhere."""
    anywhere = random.Random(5).sample(range(1, STEPS - 1), POISONED - 4)
    fixed = {0, 70, 71, STEPS - 1}
    chosen = fixed | set(anywhere)
    spare = (step for step in range(2, STEPS, 9) if step not in chosen)
    return frozenset(chosen | {next(spare) for _ in range(POISONED - len(chosen))})


def test_the_clean_run_has_learnt_and_skips_nothing() -> None:
    loss, skipped = trained(None)
    assert not skipped
    assert math.log(CHOICES) < loss < 1.15 * math.log(CHOICES)


@pytest.mark.parametrize("kind", KINDS)
def test_twenty_poisoned_batches_cost_less_than_half_a_percent(kind: Kind) -> None:
    clean, _ = trained(None)
    loss, skipped = trained(kind)
    assert set(skipped) == positions()
    assert len(skipped) == POISONED
    assert abs(loss / clean - 1) < TOLERANCE, f"{loss:.4f} against {clean:.4f}"
