"""How far verification has come, for whoever shows it."""

from __future__ import annotations

from collections.abc import Callable

# Called with a stage, how much of it is done and how much there is; once with done == total.
Progress = Callable[[str, int, int], None]


def silent(stage: str, done: int, total: int) -> None:
    """Show nothing."""
