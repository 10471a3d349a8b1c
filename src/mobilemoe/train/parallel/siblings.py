"""Ends ranks that give no sign of life, where torchrun would wait half a minute for them.

torchrun asks the other ranks to end (SIGTERM) once one has, and kills them 30 s later. A stopped
process does not hear the question. Those 30 s come on top of the time it takes to notice, so the
ranks beside it, which have noticed, do it themselves. On another machine it stays torchrun's task.
"""

from __future__ import annotations

import os
import platform
import signal
from collections.abc import Iterable
from pathlib import Path


def this_place() -> str:
    """Return what other ranks are told of where this process is."""
    return f"{platform.node()}, process {os.getpid()}"


def end_siblings(places: Iterable[str]) -> tuple[int, ...]:
    """Kill the processes at `places` that the torchrun of this process started; return them.

    Any other stays: of another machine or container, where the number means another process, or
    of a job that was started otherwise and may be of use to whoever did.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return ()
    numbers = [_number_here(place) for place in places]
    found = tuple(number for number in numbers if number and _parent(number) == os.getppid())
    for number in found:
        os.kill(number, signal.SIGKILL)
    return found


def _number_here(place: str) -> int | None:
    host, _, number = place.rpartition(", process ")
    return int(number) if host == platform.node() and int(number) != os.getpid() else None


def _parent(number: int) -> int | None:
    try:
        stat = Path(f"/proc/{number}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:  # it has ended, or this system has no such files
        return None
    return int(stat.rpartition(")")[2].split()[1])
