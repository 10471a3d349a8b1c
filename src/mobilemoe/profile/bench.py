"""Several checkpoints measured side by side: one process each, rounds interleaved A B A B.

The rounds alternate, so that a slow minute of the machine hits all models alike. TTFT runs from
the prompt to the first token; prefill tok/s is prompt length over TTFT; decode tok/s counts the
tokens after the first over the time after the first. Loading is not timed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobilemoe.profile.process import Answer, WorkerProcess
from mobilemoe.profile.worker import round_speed

WORKER = "mobilemoe.profile.worker"


@dataclass(frozen=True)
class Workload:
    """What every round does."""

    prompt_ids: tuple[int, ...]
    new_tokens: int
    threads: int | None
    context: int


@dataclass(frozen=True)
class Speed:
    """One model's rounds: milliseconds, tokens per second, MiB."""

    ttft_ms: tuple[float, ...]
    prefill_tok_s: tuple[float, ...]
    decode_tok_s: tuple[float, ...]
    peak_rss_mib: float
    threads: int
    instruction_set: str


class Worker(WorkerProcess):
    """A process that generates after a fixed prompt, again and again."""

    def __init__(self, path: Path, workload: Workload) -> None:
        """Load the model at `path`; raises as WorkerProcess."""
        self._workload = workload
        prompt = workload.prompt_ids
        setup: Answer = {"path": str(path), "ids": [*prompt, prompt[-1]]}
        setup |= {"threads": workload.threads, "context": workload.context}
        super().__init__(WORKER, str(path), setup)

    def round(self) -> dict[str, Any]:
        """Run the workload once."""
        length = len(self._workload.prompt_ids)
        new_tokens = self._workload.new_tokens - 1
        first = {"do": "run", "kind": "prefill", "tokens": length, "depth": 0}
        others = {"do": "run", "kind": "decode", "tokens": new_tokens, "depth": length}
        return round_speed(length, self.ask(first), self.ask(others))


def measure_interleaved(
    paths: Sequence[Path],
    workload: Workload,
    rounds: int,
    progress: Callable[[int], None] = lambda done: None,
) -> list[Speed]:
    """Run one warm-up and `rounds` timed rounds of every model, alternating.

    Raises:
        MobileMoEError: if a model cannot be loaded or its process dies.
    """
    workers: list[Worker] = []
    try:
        for path in paths:
            workers.append(Worker(path, workload))
        for worker in workers:
            worker.round()
        results: list[list[dict[str, Any]]] = [[] for _ in workers]
        for done in range(rounds):
            for worker, result in zip(workers, results, strict=True):
                result.append(worker.round())
            progress(done + 1)
        return [_summary(result, worker) for worker, result in zip(workers, results, strict=True)]
    finally:
        for worker in workers:
            worker.close()


def _summary(rounds: list[dict[str, Any]], worker: Worker) -> Speed:
    return Speed(
        ttft_ms=tuple(r["ttft_ms"] for r in rounds),
        prefill_tok_s=tuple(r["prefill_tok_s"] for r in rounds),
        decode_tok_s=tuple(r["decode_tok_s"] for r in rounds),
        peak_rss_mib=worker.ask({"do": "memory"})["peak_rss_mib"],
        threads=worker.ready["threads"],
        instruction_set=worker.ready["instruction_set"],
    )
