"""One training stage: the values in which the four stages differ, and nothing else does."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from mobilemoe.recipe.checks import Range, check_fields, require

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

    Raises:
        MobileMoEError: naming the stage, the field, its value and what is allowed.
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

    def __post_init__(self) -> None:
        check_fields(self, self.name, _STAGE)
        _check_stage(self)

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


_STAGE = {
    "tokens": Range(1, 10**15),
    "context": Range(2, 2**20),
    "batch_tokens": Range(2, 2**30),
    "lr": Range(0, 1, above=True),
    "warmup_steps": Range(0, 10**9),
    "final_lr": Range(0, 1),
    "capacity_factor": Range(0, 1000, above=True),
}
_SHARE = Range(0, 1)
SHARES_TOLERANCE = 1e-6  # of the sum of a mixture


def _check_stage(stage: Stage) -> None:
    allowed = f"a multiple of context {stage.context:,}"
    whole = stage.batch_tokens % stage.context == 0
    require(whole, f"{stage.name}.batch_tokens", stage.batch_tokens, allowed)
    allowed = "float with float weights; the engine has int8 activations for INT4 only"
    supported = stage.fake_quant or not stage.int8_activations
    require(supported, f"{stage.name}.activations", "int8", allowed)
    for name, share in stage.mixture.items():
        require(share in _SHARE, f"{stage.name}.mixture.{name}", share, str(_SHARE))
    total = math.fsum(stage.mixture.values())
    whole = abs(total - 1) <= SHARES_TOLERANCE
    hint = f"change the shares of [{stage.name}.mixture]; they are parts of one whole"
    require(whole, f"the sum of {stage.name}.mixture", round(total, 9), "1", hint)
