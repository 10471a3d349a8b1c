"""What one training stage is. The four stages differ in these values and in nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Stage:
    """One stage: data mixture, context, schedule, dispatch and quantisation.

    `mixture` gives the share of tokens per domain ("instruct" is the conversations).
    `capacity_factor` is drop-and-pad's, None is dropless. `for_domains` names the held-out
    parts whose loss the stage exists to lower.
    """

    name: str
    purpose: str
    for_domains: tuple[str, ...]
    steps: int
    batch_size: int
    context: int
    mixture: Mapping[str, float]
    peak_lr: float
    schedule: Literal["cosine", "linear"]
    capacity_factor: float | None
    fake_quant: bool = False

    @property
    def tokens_per_step(self) -> int:
        """Positions per optimiser step."""
        return self.batch_size * self.context

    def lr(self, step: int) -> float:
        """Learning rate of step `step` (from 0): linear warm-up, then cosine or linear decay.

        The cosine ends at a tenth of the peak, the line at zero. The published recipe names the
        shapes and peaks (arXiv 2605.27358); warm-up and floors are our choice.
        """
        warmup = max(1, min(100, self.steps // 10))
        if step < warmup:
            return self.peak_lr * (step + 1) / warmup
        progress = (step - warmup) / max(1, self.steps - warmup)
        if self.schedule == "linear":
            return self.peak_lr * (1 - progress)
        return self.peak_lr * (0.1 + 0.45 * (1 + math.cos(math.pi * progress)))


def steps_for(tokens: int, batch_size: int, context: int) -> int:
    """Return the whole number of steps nearest to `tokens`, at least one."""
    return max(1, round(tokens / (batch_size * context)))
