"""The rounds of a benchmark: every case on every subject, alternating A B A B.

Each subject has a process of its own per thread count. A case is prepared (its depth is filled,
one round runs untimed) on each subject before its timed rounds begin.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from mobilemoe.profile.cases import Case
from mobilemoe.profile.process import Answer, WorkerProcess
from mobilemoe.profile.subjects import Subject

SETTLE_SECONDS = 0.03  # between rounds: idle threads of the other process go to sleep
MEMORY_NEW_TOKENS = 16

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Timing:
    """One case on one subject: seconds of each append, round by round.

    `experts`: different experts per layer in one append (None: the engine does not say).
    `settings`: what the engine chose for this case, in words.
    """

    case: Case
    rounds: tuple[tuple[float, ...], ...]
    ready: Answer
    experts: float | None = None
    settings: str | None = None


@dataclass(frozen=True)
class PeakMemory:
    """Largest resident memory of a process that read `tokens` and wrote `new_tokens`, in MiB.

    Two processes: one read real prompts, one the same token over and over. `plan_mib`: what the
    engine planned for itself; None for another program.
    """

    tokens: int
    new_tokens: int
    real_mib: float
    repeated_mib: float
    plan_mib: float | None


def measure(
    subjects: Sequence[Subject],
    cases: Sequence[Case],
    context: int,
    rounds: int,
    progress: Progress,
) -> list[list[Timing]]:
    """Return the timings of each subject, in the order of `cases`.

    Raises:
        MobileMoEError: if a model cannot be loaded or its process dies.
    """
    results: list[list[Timing]] = [[] for _ in subjects]
    for threads, group in groupby(cases, key=lambda case: case.threads):
        with _workers(subjects, threads, context) as workers:
            for case in group:
                timings = _interleaved(case, workers, rounds, progress)
                for result, timing in zip(results, timings, strict=True):
                    result.append(timing)
    return results


@contextmanager
def _workers(
    subjects: Sequence[Subject], threads: int, context: int
) -> Iterator[list[WorkerProcess]]:
    with ExitStack() as stack:
        workers = []
        for subject in subjects:
            worker = subject.start(threads, context)
            stack.callback(worker.close)
            workers.append(worker)
        yield workers


def _interleaved(
    case: Case, workers: list[WorkerProcess], rounds: int, progress: Progress
) -> list[Timing]:
    request: Answer = {"kind": case.kind, "tokens": case.tokens, "depth": case.depth}
    prepared = []
    for worker in workers:
        progress(f"{case.label}, {case.threads} threads: preparing")
        prepared.append(worker.ask({"do": "prepare", **request}))
    answers: list[list[Answer]] = [[] for _ in workers]
    for done in range(rounds):
        for worker, answer in zip(workers, answers, strict=True):
            time.sleep(SETTLE_SECONDS)
            answer.append(worker.ask({"do": "run", **request}))
        progress(f"{case.label}, {case.threads} threads: round {done + 1} of {rounds}")
    return [
        Timing(
            case,
            tuple(tuple(one["seconds"]) for one in answer),
            worker.ready | {key: ready[key] for key in ("kv_format",) if key in ready},
            answer[-1].get("experts"),
            ready.get("settings"),
        )
        for worker, answer, ready in zip(workers, answers, prepared, strict=True)
    ]


def measure_memory(subject: Subject, threads: int, context: int, progress: Progress) -> PeakMemory:
    """Return the peaks of two fresh processes, each of which fills `context`.

    Raises:
        MobileMoEError: if the model cannot be loaded or its process dies.
    """
    new_tokens = min(MEMORY_NEW_TOKENS, context - 1)
    tokens = context - new_tokens
    answers: list[Any] = []
    for kind, fed in (("real prompts", subject), ("one token repeated", subject.repeating())):
        progress(f"peak memory of {subject.name}: {tokens} tokens, {kind}")
        worker = fed.start(threads, context)
        try:
            answer = worker.ask({"do": "fill", "tokens": tokens, "new_tokens": new_tokens})
        finally:
            worker.close()
        answers.append(answer)
    real, repeated = (answer["peak_rss_mib"] for answer in answers)
    return PeakMemory(tokens, new_tokens, real, repeated, answers[0].get("plan_mib"))
