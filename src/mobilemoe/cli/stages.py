"""Progress of work that has named stages: done, in all, and the time left, on stderr."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LINE_EVERY_SECONDS = 5.0


@contextmanager
def stage_progress() -> Iterator[Callable[[str, int, int], None]]:
    """Yield `show(stage, done, total)`: a bar on a terminal, a line now and then elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(28), TaskProgressColumn(), Remaining())
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    task = bar.add_task("", total=None)
    lines = _Lines()

    def show(stage: str, done: int, total: int) -> None:
        if lines.stage != stage:
            bar.reset(task, description=stage, total=total)
        bar.update(task, completed=done, total=total)
        line = lines.see(stage, done, total)
        if line is not None and not console.is_terminal:
            console.print(line, highlight=False, soft_wrap=True)

    with bar:
        yield show


class _Lines:
    """What to print now and then where there is no terminal."""

    def __init__(self) -> None:
        self.stage = ""
        self._started = self._last = 0.0

    def see(self, stage: str, done: int, total: int) -> str | None:
        """Return a line if it is time for one."""
        now = time.monotonic()
        if stage != self.stage:
            self.stage, self._started, self._last = stage, now, now
        if now - self._last < LINE_EVERY_SECONDS or not 0 < done < total:
            return None
        self._last = now
        left = (now - self._started) * (total - done) / done
        return f"{stage}: {done / total:.0%}, {left:.0f} s left"
