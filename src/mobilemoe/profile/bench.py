"""Several checkpoints measured side by side: one process each, rounds interleaved A B A B.

Each model lives in its own process, so that its peak resident memory is its own; the rounds
alternate, so that a slow minute of the machine hits all models alike. TTFT runs from the prompt
to the first token; prefill tok/s is prompt length over TTFT; decode tok/s counts the tokens
after the first over the time after the first. Loading is not timed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mobilemoe.errors import MobileMoEError


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


class Worker:
    """A process that holds one loaded model and runs rounds on request."""

    def __init__(self, path: Path, workload: Workload) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mobilemoe.profile.worker", str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._path = path
        try:
            self.ready = self.ask(asdict(workload))
        except BaseException:
            self.close()
            raise

    def ask(self, request: dict[str, Any] | str) -> dict[str, Any]:
        """Send one JSON line and return the JSON line that answers it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the process died; the empty answer below says so
        line = self._process.stdout.readline()
        if not line:
            raise MobileMoEError(
                f"the benchmark process of {self._path} ended with {self._process.wait()}",
                hint="its own message stands above on stderr",
            )
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


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
            worker.ask("round")
        results: list[list[dict[str, Any]]] = [[] for _ in workers]
        for done in range(rounds):
            for worker, result in zip(workers, results, strict=True):
                result.append(worker.ask("round"))
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
        peak_rss_mib=worker.ask("memory")["peak_rss_mib"],
        threads=worker.ready["threads"],
        instruction_set=worker.ready["instruction_set"],
    )
