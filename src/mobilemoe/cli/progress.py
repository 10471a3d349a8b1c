"""A bar for work that is counted in bytes: rate and time left, on stderr."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LINE_EVERY_SECONDS = 5.0


@contextmanager
def byte_progress(label: str) -> Iterator[Callable[[int, int], None]]:
    """Yield `show(done, total)`: a bar on a terminal, a line now and then elsewhere."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    started = last = time.monotonic()

    def show(done: int, total: int) -> None:
        nonlocal last
        bar.update(task, completed=done, total=total)
        now = time.monotonic()
        if not console.is_terminal and (now - last > LINE_EVERY_SECONDS):
            last = now
            rate = done / (now - started)
            left = (total - done) / rate
            console.print(
                f"{label}: {done / 1e9:.2f} of {total / 1e9:.2f} GB, "
                f"{rate / 1e6:.0f} MB/s, {left:.0f} s left",
                highlight=False,
                soft_wrap=True,
            )

    with bar:
        task = bar.add_task(label, total=None)
        yield show
