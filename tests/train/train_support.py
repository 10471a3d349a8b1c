"""A tiny model and deterministic batches for the training tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from mobilemoe.config import ModelConfig
from mobilemoe.data import Batch
from mobilemoe.model import MobileMoE
from mobilemoe.recipe import Stage
from mobilemoe.train import StepMetrics, Trainer

TINY = ModelConfig(
    vocab_size=96,
    hidden_size=64,
    intermediate_size=32,
    intermediate_size_mlp=64,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=32,
    num_local_experts=6,
    num_experts_per_tok=2,
    rope_scaling_factor=1.0,
)


def tiny_model(seed: int = 0) -> MobileMoE:
    """Fresh weights of `TINY`; torch's random state, part of a training state, starts anew."""
    torch.manual_seed(seed)
    return MobileMoE(TINY).init_weights(torch.Generator().manual_seed(seed))


def batches(step: int) -> Batch:
    """A learnable sequence (each id is followed by the next) with some ignored targets."""
    generator = np.random.default_rng(step)
    starts = generator.integers(0, TINY.vocab_size, (2, 1))
    ids_BT = (starts + np.arange(16)) % TINY.vocab_size
    targets_BT = (ids_BT + 1) % TINY.vocab_size
    targets_BT[:, :2] = -100
    return Batch(ids_BT, targets_BT, ("code", "code"))


def stage(steps: int = 6, *, capacity: float | None = None, fake_quant: bool = False) -> Stage:
    """A short stage; the arguments are where the four stages differ."""
    return Stage(
        name="test",
        purpose="test",
        for_domains=("code",),
        tokens=32 * steps,
        context=16,
        batch_tokens=32,
        mixture={"code": 1.0},
        lr=1e-2,
        schedule="cosine",
        warmup_steps=max(1, min(100, steps // 10)),
        final_lr=0.1,
        capacity_factor=capacity,
        fake_quant=fake_quant,
    )


def steps_of(trainer: Trainer, folder: Path | None = None) -> list[StepMetrics]:
    """Train to the end; return what the steps did, without other events."""
    return [event for event in trainer.run(folder) if isinstance(event, StepMetrics)]
