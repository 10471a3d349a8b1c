"""When a run goes back to its last good checkpoint, and which steps it passes over then.

Trouble is a series of refused steps, as long as no accepted one is among them. Going back once
passes over the refused steps alone: their batches may be bad and the weights good. If trouble
goes on behind them, the weights must have gone bad before, so every further return passes over
one more window of steps before the first refused one.
"""

from __future__ import annotations

from typing import Any

from mobilemoe.recipe import Guard


class Detours:
    """Counts refused steps and returns; remembers the steps that are passed over."""

    def __init__(self, limits: Guard) -> None:
        self._limits = limits
        self._refused: list[int] = []
        self._passed: set[int] = set()
        self._trouble_end = 0
        self.returns = 0

    @property
    def in_trouble(self) -> bool:
        """Whether steps were refused since the last accepted one."""
        return bool(self._refused)

    def passes_over(self, step: int) -> bool:
        """Whether `step` is left out for good."""
        return step in self._passed

    def accept(self, step: int) -> None:
        """Note a step that changed the weights; a window of them behind trouble ends it."""
        self._refused.clear()
        if step >= self._trouble_end + self._limits.window:
            self.returns = 0

    def refuse(self, step: int) -> bool:
        """Note a step that was refused; True if the run has to go back."""
        self._refused.append(step)
        return len(self._refused) >= self._limits.max_skips

    @property
    def exhausted(self) -> bool:
        """Whether another return would be one too many."""
        return self.returns >= self._limits.max_rollbacks

    def go_back(self, to_step: int) -> None:
        """Leave out the refused steps, and from the second return on some before them."""
        first, last = self._refused[0], self._refused[-1]
        while first - 1 in self._passed:
            first -= 1
        first = max(to_step, first - self.returns * self._limits.window)
        self._passed.update(range(first, last + 1))
        self._trouble_end = max(self._trouble_end, last + 1)
        self._refused.clear()
        self.returns += 1

    def state(self) -> dict[str, Any]:
        """Return everything remembered, as JSON holds it without loss."""
        return {
            "refused": list(self._refused),
            "passed": sorted(self._passed),
            "trouble_end": self._trouble_end,
            "returns": self.returns,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Remember what `state` returned."""
        self._refused = list(state["refused"])
        self._passed = set(state["passed"])
        self._trouble_end, self.returns = int(state["trouble_end"]), int(state["returns"])
