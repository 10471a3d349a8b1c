"""Ends a job whose ranks hang, with one message that names the rank and the step.

A killed rank is noticed by whoever started it (torchrun). A hung one is not: the others wait for
it in a collective. So each rank has a thread that writes a sign of life to the job's key-value
store every second and reads those of the others. There are two ways to hang:

* silent: the signs of one rank stop (a stopped process, a lost machine);
* stuck: all ranks give signs, but no main thread has made progress for the whole timeout.

Either way the process ends at once with status `HUNG`, and with it the silent ones that the same
torchrun started; that ends all others and, with --max-restarts, starts them again from the last
checkpoint.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from torch.distributed.distributed_c10d import Store

from mobilemoe.train.parallel.siblings import end_siblings, this_place

HUNG = 75  # EX_TEMPFAIL of sysexits.h: starting again may help
CHECKS_PER_TIMEOUT = 10
SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 0.01, 1.0
# In the first step, when kernels are compiled and files first read, and in checkpoints.
PATIENCE = 10.0


@dataclass(frozen=True)
class Sign:
    """What a rank says of itself.

    `ticks` counts what its watching thread did, `beats` its main thread; `slow` is 1 while the
    main thread does something that may take long.
    """

    ticks: int
    beats: int
    step: int
    slow: int
    at: str
    where: str

    def text(self) -> str:
        """Return one line that `read` understands."""
        return "\t".join(str(value) for value in vars(self).values())

    @classmethod
    def read(cls, line: bytes) -> Sign:
        """Return the sign that `text` wrote."""
        ticks, beats, step, slow, at, where = line.decode().split("\t")
        return cls(int(ticks), int(beats), int(step), int(slow), at, where)


GONE = b"gone"
WAITING = "a place where it waits for other ranks"


class Judge:
    """Decides from the signs of all ranks, and the time, whether the job hangs. No threads here."""

    def __init__(self, size: int, timeout_s: float, now: float) -> None:
        self._timeout_s = timeout_s
        self._signs: list[Sign | None] = [None] * size
        self._heard = [now] * size
        self._advanced = self._looked = now
        self._beats = -1
        self.silent: tuple[str, ...] = ()  # where the ranks are that the last verdict is about

    def verdict(self, lines: list[bytes], now: float) -> str | None:
        """Take in what every rank last said; return the message that ends the job, if any.

        A rank that has not looked for long was stopped itself, perhaps with all others (a suspended
        job): the silence before is none of theirs, and their time begins anew.
        """
        if now - self._looked > self._timeout_s / 2:
            self._heard, self._advanced = [now] * len(self._signs), now
        self._looked = now
        for rank, line in enumerate(lines):
            sign = None if line == GONE else Sign.read(line)
            if sign is None or sign != self._signs[rank]:
                self._heard[rank] = now
            self._signs[rank] = sign
        here = {rank: sign for rank, sign in enumerate(self._signs) if sign is not None}
        return self._silent(here, now) or self._stuck(here, now)

    def _silent(self, here: dict[int, Sign], now: float) -> str | None:
        silent = [rank for rank in here if now - self._heard[rank] > self._timeout_s]
        if not silent:
            return None
        self.silent = tuple(here[rank].at for rank in silent)
        step = max(sign.step for sign in here.values())  # its own last word may be a step old
        names = ", ".join(f"rank {rank} ({here[rank].at})" for rank in silent)
        return f"{names} gave no sign of life for {self._timeout_s:g} s, in step {step}"

    def _stuck(self, here: dict[int, Sign], now: float) -> str | None:
        beats = sum(sign.beats for sign in here.values())
        if beats != self._beats or len(here) < len(self._signs):
            self._beats, self._advanced = beats, now
        patience = self._timeout_s * (PATIENCE if any(s.slow for s in here.values()) else 1)
        if now - self._advanced <= patience:
            return None
        waiting = {r for r, sign in here.items() if sign.where == WAITING}
        suspects = sorted(set(here) - waiting) or sorted(here)
        places = "; ".join(f"rank {r} ({here[r].at}) at {here[r].where}" for r in suspects)
        step = max(sign.step for sign in here.values())
        return f"no rank has advanced for {patience:g} s in step {step}: {places}"


class Watchdog:
    """One rank's thread of signs; `report` says why the process ends.

    The store must be shared by all ranks. Construct it before the process group: by the time
    that the group is complete, every rank has given its first sign.
    """

    def __init__(
        self,
        store: Store,
        rank: int,
        size: int,
        timeout_s: float,
        report: Callable[[str], None] = sys.stderr.write,  # type: ignore[assignment]
    ) -> None:
        self._store, self._rank, self._size = store.clone(), rank, size  # type: ignore[attr-defined]
        self._timeout_s, self._report = timeout_s, report
        self._pause_s = min(LONGEST_PAUSE_S, timeout_s / CHECKS_PER_TIMEOUT)
        self._ticks = self._beats = self._meetings = 0
        self._step: int | None = None
        self._slow = True
        self._at = this_place()
        self._main = threading.main_thread().ident
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._store.set_timeout(timedelta(seconds=timeout_s))
        self._say(self._sign())

    def start(self) -> None:
        """Begin to watch; all ranks must have been constructed."""
        self._thread.start()

    def beat(self, step: int | None = None) -> None:
        """Note that the main thread advances (to `step`, if given)."""
        self._beats += 1
        if step is not None:
            self._slow = self._step is None or step != self._step + 1
            self._step = step

    def meet(self) -> None:
        """Wait until all ranks have called this as often; only a hung rank ends the wait."""
        self._meetings += 1
        key, pause_s = f"watchdog/meeting/{self._meetings}", SHORTEST_PAUSE_S
        self._store.add(key, 1)
        while self._store.add(key, 0) < self._size:
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, self._pause_s)
        self._beats += 1

    @contextmanager
    def patience(self) -> Iterator[None]:
        """Let the main thread take `PATIENCE` times the timeout."""
        before, self._slow = self._slow, True
        try:
            yield
        finally:
            self._slow = before
            self._beats += 1

    def stop(self) -> None:
        """Stop watching, and tell the others not to expect signs of this rank."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()
            self._say(GONE)

    def _watch(self) -> None:
        judge = Judge(self._size, self._timeout_s, time.monotonic())
        reached = time.monotonic()
        keys = [_key(rank) for rank in range(self._size)]
        while not self._stopped.wait(self._pause_s):
            try:
                self._say(self._sign())
                lines = self._store.multi_get(keys)
                reached = time.monotonic()
            except RuntimeError as error:  # of which the store's own errors are
                if time.monotonic() - reached > self._timeout_s:
                    self._end(f"the job's store does not answer (the rank or agent 0): {error}")
                continue
            message = judge.verdict(lines, time.monotonic())
            if message is not None and not self._stopped.is_set():
                self._end(message, judge.silent)

    def _sign(self) -> bytes:
        self._ticks += 1
        sign = Sign(
            self._ticks, self._beats, self._step or 0, int(self._slow), self._at, _place(self._main)
        )
        return sign.text().encode()

    def _say(self, line: bytes) -> None:
        self._store.set(_key(self._rank), line)

    def _end(self, message: str, silent: tuple[str, ...] = ()) -> None:
        """Say why, unless another rank did, and end this process in whatever state it is."""
        try:
            first = self._store.compare_set("watchdog/why", "", message).decode() == message
        except RuntimeError:
            first = True
        if first:
            self._report(
                f"error: {message}\nhint: nothing after the last checkpoint is kept; go on with "
                "--resume, or let torchrun do it (--max-restarts)\n"
            )
        end_siblings(silent)
        os._exit(HUNG)


def _key(rank: int) -> str:
    return f"watchdog/{rank}"


def _place(thread: int | None) -> str:
    """Say where a thread is: its innermost frame, or that it waits for other ranks."""
    frame = sys._current_frames().get(thread or 0)
    if frame is None:
        return "its end"
    file = frame.f_code.co_filename
    is_collective = "torch/distributed/" in file and "torch/distributed/checkpoint" not in file
    if is_collective or file == __file__:
        return WAITING
    return f"{file}:{frame.f_lineno} in {frame.f_code.co_name}".replace("\t", " ")
