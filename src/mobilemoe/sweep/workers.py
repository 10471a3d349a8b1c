"""Processes that train one run after another, each on its own cores. Nothing is shared.

A pool of the standard library either waits for ever for a worker that the system killed or lets
running work finish before it closes; a sweep needs neither.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from mobilemoe.sweep.grid import RunSpec, SweepTraining


@dataclass(frozen=True)
class Outcome:
    """How a run ended: its row, or what went wrong."""

    run: RunSpec
    row: Mapping[str, Any] | None
    error: str


@dataclass
class _Worker:
    process: Any  # a SpawnProcess
    pipe: Connection
    run: RunSpec


def train_all(
    runs: Sequence[RunSpec], training: SweepTraining, data: Path, workers: int, threads: int
) -> Iterator[Outcome]:
    """Yield every run's outcome as it ends; closing the iterator ends the processes at once.

    `data` is the folder of the prepared data set, which exists already.
    """
    context = multiprocessing.get_context("spawn")
    waiting, busy = list(reversed(runs)), list[_Worker]()

    def start() -> None:
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_serve, args=(theirs, training, data, threads), daemon=True
        )
        process.start()
        theirs.close()
        busy.append(_Worker(process, ours, waiting.pop()))
        _send(busy[-1])

    try:
        for _ in range(min(workers, len(runs))):
            start()
        while busy:
            for pipe in wait([worker.pipe for worker in busy]):
                worker = next(each for each in busy if each.pipe is pipe)
                outcome = _result(worker)
                if outcome.row is not None and waiting:
                    worker.run = waiting.pop()
                    _send(worker)
                else:
                    _end(worker)
                    busy.remove(worker)
                    if waiting:
                        start()
                yield outcome
    finally:
        for worker in busy:
            _end(worker)


def _send(worker: _Worker) -> None:
    """Hand over the run; that nobody is there to take it is seen when its result is read."""
    with suppress(OSError):
        worker.pipe.send(worker.run)


def _result(worker: _Worker) -> Outcome:
    try:
        row, error = worker.pipe.recv()
    except (EOFError, OSError):  # closed, or reset with words unread
        worker.process.join()
        code = worker.process.exitcode
        return Outcome(worker.run, None, f"the process ended with status {code}")
    return Outcome(worker.run, row, error)


def _end(worker: _Worker) -> None:
    worker.process.kill()
    worker.process.join()
    worker.pipe.close()


def _serve(pipe: Connection, training: SweepTraining, data: Path, threads: int) -> None:
    """Train what comes through `pipe` until it closes; runs in a process of its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    os.environ["OMP_NUM_THREADS"] = str(threads)
    import torch  # here: the parent need not load it

    from mobilemoe.data import build_dataset
    from mobilemoe.sweep.one_run import train_one

    torch.set_num_threads(threads)
    dataset = build_dataset(data, vocab_size=training.vocab_size)
    while True:
        try:
            run = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((train_one(run, training, dataset), ""))
        except Exception as error:  # whatever it was, the other runs go on
            pipe.send((None, f"{type(error).__name__}: {error}"))
