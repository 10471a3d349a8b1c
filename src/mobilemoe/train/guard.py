"""What keeps one bad step from spoiling a run: which steps are refused, and what follows.

`StepGuard` looks at the loss and the gradient norm of a step before the weights change, and at
the loads of the experts after it. Loss and norm are those of the whole step, the same on every
process, so all processes decide alike. Everything it remembers is part of the checkpoint.
"""

from __future__ import annotations

import math
from collections import deque
from statistics import fmean, median
from typing import Any

from mobilemoe.config import ModelConfig
from mobilemoe.recipe import Guard

# Steps before medians mean anything; until then only what no training shows is refused.
WARM_STEPS = 10
# Of the largest load that routing allows, E / K: nano's stays below 0.75 while its bias learns.
COLLAPSED_SHARE = 0.8
# An alarm is over when the load has fallen to this share of the limit.
RECOVERED_SHARE = 0.9


class StepGuard:
    """Refuses steps that are not finite or explode, and sees experts collapse.

    `clip_norm` is what gradients are clipped to: where they have become much smaller, as in a
    text learnt by heart, a usual gradient is no explosion.
    """

    def __init__(self, limits: Guard, config: ModelConfig, clip_norm: float) -> None:
        self._limits, self._clip_norm = limits, clip_norm
        self._highest_loss = math.log(config.vocab_size) + limits.max_loss_jump
        self._losses: deque[float] = deque(maxlen=limits.window)
        self._norms: deque[float] = deque(maxlen=limits.window)
        self._loads: deque[float] = deque(maxlen=limits.window)
        self._alarmed = False
        self.collapse_load = limits.collapse_load
        if config.num_local_experts:
            largest = config.num_local_experts / config.num_experts_per_tok
            self.collapse_load = min(limits.collapse_load, COLLAPSED_SHARE * largest)

    def verdict(self, loss: float, grad_norm: float) -> str | None:
        """Return why a step must not change the weights; None if it may."""
        for name, value in (("loss", loss), ("gradient norm", grad_norm)):
            if not math.isfinite(value):
                return f"the {name} is {value}"
        return self._absolute(loss, grad_norm) or self._relative(loss, grad_norm)

    def _absolute(self, loss: float, grad_norm: float) -> str | None:
        limits = self._limits
        if loss > self._highest_loss:
            return (
                f"the loss {loss:.3f} is {limits.max_loss_jump:g} nats worse than guessing "
                f"(limit {self._highest_loss:.3f})"
            )
        if grad_norm > limits.max_grad_norm:
            return f"the gradient norm {grad_norm:.4g} is above {limits.max_grad_norm:g}"
        return None

    def _relative(self, loss: float, grad_norm: float) -> str | None:
        if len(self._losses) < min(WARM_STEPS, self._limits.window):
            return None
        limits, usual_loss, usual_norm = self._limits, median(self._losses), median(self._norms)
        if loss > usual_loss + limits.max_loss_jump:
            return (
                f"the loss {loss:.3f} is more than {limits.max_loss_jump:g} nats above "
                f"{usual_loss:.3f}, the median of the last {len(self._losses)} steps"
            )
        if grad_norm > limits.max_grad_factor * max(usual_norm, self._clip_norm):
            return (
                f"the gradient norm {grad_norm:.4g} is more than {limits.max_grad_factor:g} "
                f"times {self._clip_norm:g}, to which it is clipped, and {usual_norm:.4g}, "
                f"the median of the last {len(self._norms)} steps"
            )
        return None

    def accept(self, loss: float, grad_norm: float) -> None:
        """Take a step that changed the weights into the medians."""
        self._losses.append(loss)
        self._norms.append(grad_norm)

    def collapse(self, worst_load: float) -> float | None:
        """Take in the worst load of a step; return its mean over the window if that is an alarm.

        An alarm is raised once; the next one only after the load had gone down again.
        """
        self._loads.append(worst_load)
        mean = fmean(self._loads)
        if self._alarmed:
            self._alarmed = mean > RECOVERED_SHARE * self.collapse_load
        elif len(self._loads) == self._loads.maxlen and mean > self.collapse_load:
            self._alarmed = True
            return mean
        return None

    def state(self) -> dict[str, Any]:
        """Return everything remembered, as JSON holds it without loss."""
        windows = {"losses": self._losses, "norms": self._norms, "loads": self._loads}
        return {name: list(w) for name, w in windows.items()} | {"alarmed": self._alarmed}

    def load(self, state: dict[str, Any]) -> None:
        """Remember what `state` returned."""
        for window, name in (
            (self._losses, "losses"),
            (self._norms, "norms"),
            (self._loads, "loads"),
        ):
            window.clear()
            window.extend(state[name])
        self._alarmed = bool(state["alarmed"])
