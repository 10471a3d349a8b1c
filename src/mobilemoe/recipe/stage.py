"""One training stage: the values in which the four stages differ, and nothing else does."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

StageName = Literal["pretrain", "midtrain", "sft", "qat"]
STAGE_NAMES: tuple[StageName, ...] = ("pretrain", "midtrain", "sft", "qat")
Schedule = Literal["cosine", "linear"]


@dataclass(frozen=True)
class Stage:
    """Tokens, context, data mixture, schedule, dispatch and quantisation of one stage.

    `mixture` gives the share of rows per source. `lr` is the peak of the schedule, which rises
    linearly over `warmup_steps` and ends at `final_lr` times the peak. `capacity_factor` is
    drop-and-pad's, None is dropless. `fake_quant` rounds the weights to the values of the INT4
    file, `int8_activations` the inputs of their products as the engine does. `for_domains` names
    the held-out parts whose loss the stage exists to lower.
    """

    name: str
    purpose: str
    for_domains: tuple[str, ...]
    tokens: int
    context: int
    batch_tokens: int
    mixture: Mapping[str, float]
    lr: float
    schedule: Schedule
    warmup_steps: int
    final_lr: float
    capacity_factor: float | None
    fake_quant: bool = False
    int8_activations: bool = False

    @property
    def batch_size(self) -> int:
        """Rows of `context` tokens per optimiser step, over all devices."""
        return self.batch_tokens // self.context

    @property
    def tokens_per_step(self) -> int:
        """Positions per optimiser step, over all devices."""
        return self.batch_size * self.context

    @property
    def steps(self) -> int:
        """The whole number of optimiser steps nearest to `tokens`, at least one."""
        return max(1, round(self.tokens / self.tokens_per_step))

    def lr_at(self, step: int) -> float:
        """Return the learning rate of step `step` (from 0).

        The published recipe names shapes and peaks (arXiv 2605.27358); warm-up and floors are
        each recipe's own choice.
        """
        warmup = max(1, self.warmup_steps)
        if step < warmup:
            return self.lr * (step + 1) / warmup
        progress = (step - warmup) / max(1, self.steps - warmup)
        falling = (
            1 - progress if self.schedule == "linear" else 0.5 + 0.5 * math.cos(math.pi * progress)
        )
        return self.lr * (self.final_lr + (1 - self.final_lr) * falling)

    def with_tokens(self, tokens: int) -> Stage:
        """Return the same stage for about `tokens` tokens, its warm-up a tenth at most."""
        changed = replace(self, tokens=max(1, tokens))
        return replace(changed, warmup_steps=max(1, min(self.warmup_steps, changed.steps // 10)))
