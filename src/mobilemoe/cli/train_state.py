"""What the display of a training run knows: smoothed values, trends and the time left."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from mobilemoe.recipe import Stage
from mobilemoe.train.events import Alarm, RolledBack, StepMetrics, StepSkipped, TrainEvent

FAST, SLOW = 0.9, 0.98  # weight of the past in the running means; about 10 and 50 steps
FLAT = 0.002  # a relative change below this is no trend
HISTORY = 128  # points kept of a curve


@dataclass
class Trend:
    """A curve in bounded memory: the whole stage in at most `HISTORY` points, evenly thinned."""

    points: list[float] = field(default_factory=list)
    value: float | None = None
    _slow: float = 0.0
    _stride: int = 1
    _open: list[float] = field(default_factory=list)

    def add(self, value: float) -> None:
        """Take one more value; what is not finite is left out."""
        if not math.isfinite(value):
            return
        old = self.value
        self.value = value if old is None else FAST * old + (1 - FAST) * value
        self._slow = value if old is None else SLOW * self._slow + (1 - SLOW) * value
        self._open.append(value)
        if len(self._open) == self._stride:
            self.points.append(sum(self._open) / self._stride)
            self._open.clear()
        if len(self.points) == HISTORY:
            pairs = zip(self.points[::2], self.points[1::2], strict=True)
            self.points = [(left + right) / 2 for left, right in pairs]
            self._stride *= 2

    @property
    def direction(self) -> int:
        """Whether the curve falls (-1), rises (1) or does neither (0)."""
        change = (self.value or 0.0) - self._slow
        return 0 if abs(change) <= FLAT * abs(self._slow) else 1 if change > 0 else -1


@dataclass
class RunState:
    """Everything shown about a run of `stages`; times are seconds of one monotonic clock."""

    stages: Sequence[Stage]
    began: float
    index: int | None = None
    step: int = 0
    first_step: int = 0
    last: StepMetrics | None = None
    loss: Trend = field(default_factory=Trend)
    domains: dict[str, Trend] = field(default_factory=dict)
    seconds_per_token: Trend = field(default_factory=Trend)
    mfu: Trend = field(default_factory=Trend)
    skipped: int = 0
    rolled_back: int = 0
    alarm: Alarm | None = None
    saved: tuple[int, float] | None = None
    note: str = ""

    @property
    def stage(self) -> Stage | None:
        """The stage that runs now; None before the first."""
        return None if self.index is None else self.stages[self.index]

    def start(self, name: str, step: int) -> None:
        """Enter the stage called `name`, of which `step` steps are done already."""
        self.index = [stage.name for stage in self.stages].index(name)
        self.step = self.first_step = step
        self.last, self.note, self.saved = None, "", None
        self.loss, self.domains = Trend(), {}
        self.seconds_per_token, self.mfu = Trend(), Trend()

    def take(self, event: TrainEvent) -> None:
        """Take in one event."""
        match event:
            case StepMetrics():
                self._measured(event)
            case StepSkipped():
                self.step = event.step
                self.skipped += 1
            case RolledBack():
                self.step = event.to_step
                self.rolled_back += 1
            case Alarm():
                self.alarm = event

    def _measured(self, event: StepMetrics) -> None:
        self.last, self.step, self.note = event, event.step, ""
        self.loss.add(event.loss)
        for name, loss in event.domain_loss.items():
            self.domains.setdefault(name, Trend()).add(loss)
        if event.tok_s > 0:
            self.seconds_per_token.add(1 / event.tok_s)
        if event.mfu is not None:
            self.mfu.add(event.mfu)

    @property
    def tok_s(self) -> float | None:
        """Tokens per second, smoothed."""
        return 1 / self.seconds_per_token.value if self.seconds_per_token.value else None

    @property
    def share(self) -> float:
        """The share of the current stage that is done."""
        return min(1.0, self.step / self.stage.steps) if self.stage else 0.0

    def stage_left(self) -> float | None:
        """Return the seconds until the current stage ends, if its speed is known."""
        tokens = self.seconds_per_token.value
        if self.stage is None or tokens is None:
            return None
        return max(0, self.stage.steps - self.step) * self.stage.tokens_per_step * tokens

    def run_left(self) -> float | None:
        """Return the seconds until the last stage ends, later stages at the speed of this one."""
        here = self.stage_left()
        if here is None or self.index is None:
            return None
        later = self.stages[self.index + 1 :]
        tokens = sum(stage.steps * stage.tokens_per_step for stage in later)
        return here + tokens * (self.seconds_per_token.value or 0.0)
