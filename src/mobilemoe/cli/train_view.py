"""What `mobilemoe train` shows: a live panel on a terminal, plain lines elsewhere; on stderr."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from mobilemoe.cli.train_panel import train_panel
from mobilemoe.cli.train_state import RunState
from mobilemoe.cli.units import time_span
from mobilemoe.page.markup import TIMES
from mobilemoe.recipe import Stage
from mobilemoe.train.events import Alarm, RolledBack, StepMetrics, StepSkipped, TrainEvent

LINE_EVERY_SECONDS = 10.0
DRAWN_PER_SECOND = 2.0


class TrainView:
    """Shows a run of `stages` while it is trained.

    Between `started` and `finished` of a stage goes every event to `show`. `run` is the run's
    name, `clock` a monotonic one.
    """

    def __init__(
        self,
        run: str,
        stages: Sequence[Stage],
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.console = console or Console(stderr=True)
        self._run, self._clock = run, clock
        self._state = RunState(stages, began=clock())
        self._lock = threading.Lock()  # the panel is drawn by a thread of its own
        self._stage_began = self._last_line = clock()
        self._live: Live | None = None
        if self.console.is_terminal:
            self._live = Live(
                get_renderable=self._panel,
                console=self.console,
                refresh_per_second=DRAWN_PER_SECOND,
                transient=True,
            )

    def __enter__(self) -> TrainView:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def _panel(self) -> RenderableType:
        with self._lock:
            return train_panel(self._run, self._state, self.console.width, self._clock())

    def note(self, text: str) -> None:
        """Say what is being prepared: until the next step on a terminal, else as a line."""
        with self._lock:
            self._state.note = text
        if self._live is None:
            self.say(text)

    def preparing(self, what: str, done: int, total: int) -> None:
        """Say how far a preparation is: in the panel, or as a line now and then."""
        text = f"{what} {done:,}/{total:,}"
        with self._lock:
            self._state.note = text
        now = self._clock()
        if self._live is None and (done == total or now - self._last_line >= LINE_EVERY_SECONDS):
            self._last_line = now
            self.say(text)

    def say(self, text: str) -> None:
        """Print a line that stays: above the panel, or wherever stderr goes."""
        self._say(Text(text))

    def started(self, stage: str, step: int = 0) -> None:
        """Say that `stage` begins, or goes on after `step` steps."""
        with self._lock:
            self._state.start(stage, step)
            plan = self._state.stage
        self._stage_began = self._last_line = self._clock()
        if self._live is None and plan is not None:
            resumed = f", resumed at step {step:,}" if step else ""
            size = f"{plan.steps:,} steps of {plan.tokens_per_step:,} tokens"
            self._say(Text(f"▸ {stage}: {size}{resumed}"))

    def show(self, event: TrainEvent) -> None:
        """Show one event."""
        with self._lock:
            self._state.take(event)
        match event:
            case StepMetrics():
                self._now_and_then(event)
            case StepSkipped():
                text = f"{event.stage} step {event.step:,} skipped: {event.reason}"
                self._say(Text(f"⚠ {text}", "yellow"))
            case RolledBack():
                text = f"step {event.from_step:,} back to {event.to_step:,}: {event.reason}"
                self._say(Text(f"⚠ {event.stage} {text}", "yellow"))
            case Alarm():
                text = f"{event.stage} step {event.step:,}: {event.message}"
                self._say(Text(f"⚠ {text}", "bold yellow"))

    def saved(self, step: int) -> None:
        """Say that the state after `step` is safe."""
        with self._lock:
            self._state.saved = (step, self._clock())

    def finished(self, stage: str, resumed: bool = False) -> None:
        """Say that `stage` is done; with `resumed`, that an earlier command did it."""
        with self._lock:
            state = self._state
            if resumed:
                self._say(Text.assemble(("✓", "green"), f" {stage:<9} done earlier"))
                return
            plan, speed = state.stage, state.tok_s
            losses = state.loss.points[:1] + [v for v in (state.loss.value,) if v is not None]
        tokens = plan.tokens_per_step * plan.steps if plan else 0
        parts = [f"{tokens / 1e6:,.2f}M tokens", time_span(self._clock() - self._stage_began)]
        parts += [f"{speed:,.0f} tok/s"] if speed else []
        parts += [f"loss {losses[0]:.3f} → {losses[-1]:.3f}"] if losses else []
        self._say(Text.assemble(("✓", "green"), f" {stage:<9} ", " · ".join(parts)))

    def _now_and_then(self, event: StepMetrics) -> None:
        now = self._clock()
        if self._live is not None or now - self._last_line < LINE_EVERY_SECONDS:
            return
        self._last_line = now
        self._say(Text(f"  {progress_line(self._state, event)}"))

    def _say(self, text: Text) -> None:
        self.console.print(text, highlight=False, soft_wrap=True)


def progress_line(state: RunState, event: StepMetrics) -> str:
    """Return where a stage is, in one line without colour."""
    steps = state.stage.steps if state.stage else event.step
    parts = [f"{event.stage} {event.step}/{steps} ({state.share:.0%})"]
    parts += [f"loss {state.loss.value:.3f}"] if state.loss.value is not None else []
    parts += [f"{state.tok_s:,.0f} tok/s"] if state.tok_s else []
    parts += [f"MFU {state.mfu.value:.1%}"] if state.mfu.value is not None else []
    parts += [f"grad {event.grad_norm:.3g}", f"dropped {event.dropped_share:.1%}"]
    parts += [f"worst expert {event.worst_load:.1f}{TIMES}"]
    left = state.run_left()
    parts += [f"{time_span(left)} left"] if left is not None else []
    return "  ".join(parts)
