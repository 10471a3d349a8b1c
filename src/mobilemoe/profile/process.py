"""A benchmark's worker processes: one JSON line asks, one JSON line answers.

Each model lives in a process of its own, so that its peak resident memory is its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any, Protocol

from mobilemoe.errors import MobileMoEError

Answer = dict[str, Any]


class Runner(Protocol):
    """What a worker process serves."""

    def about(self) -> Answer:
        """Say what was loaded and how it runs."""

    def run(self, request: Answer) -> Answer:
        """Do what `request` asks and return what it gave."""


class WorkerProcess:
    """A process that holds one loaded model and does what it is asked; `ready` is what it is."""

    def __init__(self, module: str, subject: str, setup: Answer) -> None:
        """Start `module`, whose main calls `serve`, for the model `subject` with `setup`.

        Raises:
            MobileMoEError: what the worker itself raises, or if it dies.
        """
        self._subject = subject
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            process_group=0,  # Ctrl-C is for the parent, which ends its workers
        )
        try:
            self.ready = self.ask(setup)
        except BaseException:
            self.close()
            raise

    def ask(self, request: Answer) -> Answer:
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
                f"the benchmark process of {self._subject} ended with {self._process.wait()}",
                hint="its own message stands above on stderr",
            )
        answer: Answer = json.loads(line)
        if "error" in answer:
            raise MobileMoEError(answer["error"], hint=answer["hint"])
        return answer

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


def serve(start: Callable[[Answer], Runner]) -> None:
    """Answer standard input until it ends: `start` gets the first line, its runner the others.

    Standard output is for answers only: what a library prints there goes to stderr.
    """
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        runner: Runner | None = None
        for line in sys.stdin:
            request = json.loads(line)
            try:
                if runner is None:
                    runner = start(request)
                    answer = runner.about()
                else:
                    answer = runner.run(request)
            except MobileMoEError as error:
                answer = {"error": error.message, "hint": error.hint}
            answers.write(json.dumps(answer) + "\n")
            answers.flush()
