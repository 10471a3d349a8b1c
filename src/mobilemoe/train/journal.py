"""The journal of a stage: every train event as one line of JSON, in the order it happened.

A line is {"event": kind, "time": Unix seconds, ...the event's own fields}. It is written in one
piece before the next step starts, so a killed process loses at most half a line, which the next
opening cuts off. JSON has no NaN: a value that is not finite is written as a string.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from mobilemoe.errors import MobileMoEError
from mobilemoe.train.event_json import event_from_dict, kind_of
from mobilemoe.train.events import (
    Alarm,
    ExpertLoads,
    RolledBack,
    StepMetrics,
    StepSkipped,
    TrainEvent,
)

JOURNAL_FILE = "metrics.jsonl"
BLOCK = 1 << 16


@dataclass(frozen=True)
class Entry:
    """One line: the event and when it was written, in Unix seconds."""

    time: float
    event: TrainEvent


class Journal:
    """Appends events to `path`; a half-written last line that is there is removed first.

    Raises:
        MobileMoEError: if the file cannot be opened.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self.path, self._clock = path, clock
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab", buffering=0)
            self._file.truncate(_end_of_last_line(path))
        except OSError as error:
            raise self._refused(error) from error

    def append(self, event: TrainEvent) -> None:
        """Write one line and hand it to the system: it survives the end of this process.

        Raises:
            MobileMoEError: if the disk refuses; no half line stays.
        """
        line = json.dumps(_line(event, self._clock()), ensure_ascii=False, allow_nan=False)
        content = line.encode("utf-8", "backslashreplace") + b"\n"
        start = self._file.seek(0, os.SEEK_END)
        try:
            while content:
                content = content[self._file.write(content) :]
        except OSError as error:
            self._file.truncate(start)
            raise self._refused(error) from error

    def flush(self) -> None:
        """Wait until every line is on the disk: it survives a loss of power."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._refused(error) from error

    def truncate_to(self, step: int) -> None:
        """Drop the lines of everything after the newest state saved at `step`.

        They will be made again. One system call cuts the file, so it holds either all of them
        or none. What a rollback undid before that state stays: it happened. Going back writes a
        new state, so the line of a rollback to `step` stays as well.

        Raises:
            MobileMoEError: if a line is damaged, or the disk refuses.
        """
        entries = list(_lines(self.path))
        kept = _kept(entries, step)
        end = entries[kept - 1].end if kept else 0
        try:
            self._file.truncate(end)
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._refused(error) from error

    def close(self) -> None:
        """Close the file; nothing can be appended afterwards."""
        self._file.close()

    def _refused(self, error: OSError) -> MobileMoEError:
        return MobileMoEError(
            f"cannot write the journal {self.path}: {error.strerror or error}",
            hint="free some space or check the permissions; then run again with --resume",
        )


def read_journal(path: Path) -> list[TrainEvent]:
    """Return every event of the journal at `path`, oldest first; see `read_entries`."""
    return [entry.event for entry in read_entries(path)]


def read_entries(path: Path) -> list[Entry]:
    """Return every line of the journal at `path`, oldest first.

    A last line without its end is still being written and is left out.

    Raises:
        MobileMoEError: naming the file and the line that is damaged, or if there is no file.
    """
    return [line.entry for line in _lines(path)]


@dataclass(frozen=True)
class _Line:
    """An entry and the offset behind its end."""

    entry: Entry
    end: int


def _lines(path: Path) -> Iterator[_Line]:
    end = 0
    try:
        with path.open("rb") as file:
            for number, content in enumerate(file, start=1):
                if not content.endswith(b"\n"):
                    return
                end += len(content)
                yield _Line(_entry(content, path, number), end)
    except OSError as error:
        raise MobileMoEError(f"cannot read the journal {path}: {error.strerror}") from error


def _entry(content: bytes, path: Path, number: int) -> Entry:
    try:
        values = json.loads(content)
        if not isinstance(values, dict):
            raise ValueError("not an object")
        moment = values.pop("time", None)
        if type(moment) not in (int, float):
            raise ValueError(f"time is {moment!r}")
        return Entry(float(moment), event_from_dict(values))
    except (ValueError, RecursionError) as error:
        raise MobileMoEError(
            f"{path}, line {number} is damaged: {str(error).splitlines()[0]}",
            hint="delete the line, or move the file away to go on without its history",
        ) from error


def _line(event: TrainEvent, moment: float) -> dict[str, Any]:
    values = {field.name: getattr(event, field.name) for field in fields(event)}
    return {"event": kind_of(event), "time": round(moment, 3), **_plain(values)}


def _plain(value: Any) -> Any:
    """Return `value` as JSON can hold it: "NaN", "Infinity" and "-Infinity" as strings."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if hasattr(value, "items"):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


def _kept(lines: list[_Line], step: int) -> int:
    """Return how many lines came before what will be made again after resuming at `step`.

    The state at `step` was written when that step ended, or by going back to it. If the run
    was there more than once, the newest state is the one that is there.
    """
    places = [_place_after(line.entry.event) for line in lines]
    kept = max((i + 1 for i, place in enumerate(places) if 0 <= place <= step), default=0)
    while 0 < kept < len(lines) and _goes_with(lines[kept].entry.event, step):
        kept += 1
    return kept


def _place_after(event: TrainEvent) -> int:
    """Return the step at which `event` leaves the run; -1 if it does not move it."""
    if isinstance(event, RolledBack):
        return event.to_step
    return event.step if isinstance(event, StepMetrics | StepSkipped) else -1


def _goes_with(event: TrainEvent, step: int) -> bool:
    """Whether `event` only comments on a step up to `step`."""
    return isinstance(event, Alarm | ExpertLoads) and event.step <= step


def _end_of_last_line(path: Path) -> int:
    """Return the offset behind the last line end of the file, reading from its end."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - BLOCK)
            file.seek(start)
            found = file.read(end - start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            end = start
    return 0
