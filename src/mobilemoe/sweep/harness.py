"""A whole sweep: what is missing is trained, what is there is kept, a stop loses no row."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mobilemoe.data import build_dataset
from mobilemoe.errors import MobileMoEError
from mobilemoe.sweep.grid import RunSpec, Sweep
from mobilemoe.sweep.rows import Row, Rows
from mobilemoe.sweep.workers import train_all


@dataclass(frozen=True)
class Progress:
    """How far a sweep is. `left_s` is estimated from FLOPs, None before the first run ended."""

    done: int
    total: int
    left_s: float | None


@dataclass(frozen=True)
class RunFinished:
    """A run ended and its row is on the disk."""

    row: Row
    progress: Progress


@dataclass(frozen=True)
class RunFailed:
    """A run ended without a loss; the next start tries it again."""

    key: str
    error: str
    progress: Progress


def carry_out(
    sweep: Sweep, out: Path, data: Path, workers: int = 1, threads: int = 1
) -> Iterator[RunFinished | RunFailed]:
    """Train what `out` lacks of `sweep` and append one row per run; yield each as it ends.

    `out` is a table of JSON lines, `data` a folder for the prepared corpus. A table that was
    made by another version of the sweep, with the same names for other runs, is refused. With
    the same `threads` the same seed gives the same row on the same machine; `workers` changes
    only their order.

    Raises:
        MobileMoEError: if `out` is another sweep's or cannot be written.
    """
    rows = Rows(out)
    try:
        missing = missing_runs(sweep, rows)
        build_dataset(data, vocab_size=sweep.training.vocab_size)
        clock = _Clock(sweep, missing)
        for outcome in train_all(missing, sweep.training, data, workers, threads):
            progress = clock.after(outcome.run)
            if outcome.row is None:
                yield RunFailed(outcome.run.key, outcome.error, progress)
                continue
            head = {"key": outcome.run.key, "fingerprint": sweep.fingerprint(outcome.run)}
            row = {**head, **outcome.row, "threads": threads}
            rows.append(row)
            yield RunFinished(row, progress)
    finally:
        rows.close()


def missing_runs(sweep: Sweep, rows: Rows) -> tuple[RunSpec, ...]:
    """Return the runs that have no row yet, in order.

    Raises:
        MobileMoEError: if a row has the name of a run that was trained otherwise.
    """
    missing = []
    for run in sweep.runs():
        row = rows.done.get(run.key)
        if row is None:
            missing.append(run)
        elif row["fingerprint"] != sweep.fingerprint(run):
            raise MobileMoEError(
                f"{rows.path}: {run.key} was trained with other settings than the sweep has now",
                hint="choose another --out, or undo the change of the sweep's file",
            )
    return tuple(missing)


class _Clock:
    """Estimates the time left from the FLOPs done since the start."""

    def __init__(self, sweep: Sweep, missing: Sequence[RunSpec]) -> None:
        self._sweep, self._started = sweep, time.monotonic()
        self._total, self._done = len(sweep.runs()), len(sweep.runs()) - len(missing)
        self._flops_left, self._flops_done = sum(map(self._flops, missing)), 0

    def _flops(self, run: RunSpec) -> int:
        return run.tokens * run.config(self._sweep.training).active_params

    def after(self, run: RunSpec) -> Progress:
        flops = self._flops(run)
        self._done += 1
        self._flops_done += flops
        self._flops_left -= flops
        rate = self._flops_done / (time.monotonic() - self._started)
        return Progress(self._done, self._total, self._flops_left / rate)
