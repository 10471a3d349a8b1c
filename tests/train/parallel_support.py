"""Starting the ranks of a test as processes of their own, and ending them all if one fails."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

FOLDER = Path(__file__).parent


def free_ports(count: int) -> list[str]:
    """Return ports that nothing listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [str(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


def run_ranks(size: int, script: str, out: Path, *arguments: str, seconds: float = 600) -> None:
    """Run `script OUT ARGUMENTS` on `size` ranks; fail with the log of the first that fails."""
    command = [sys.executable, str(FOLDER / script), str(out), *arguments]
    ranks = []
    for rank in range(size):
        environment = os.environ | {"OMP_NUM_THREADS": "1", "RANK": str(rank)}
        with (out / f"rank{rank}.log").open("wb") as log:
            ranks.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
    try:
        _wait(ranks, out, time.monotonic() + seconds)
    finally:
        for process in ranks:
            process.kill()
            process.wait()


def _wait(ranks: list[subprocess.Popen[bytes]], out: Path, deadline: float) -> None:
    while any(process.poll() is None for process in ranks):
        failed = [rank for rank, process in enumerate(ranks) if process.poll()]
        if failed or time.monotonic() > deadline:
            culprit, what = (failed[0], "failed") if failed else (0, "is late")
            log = (out / f"rank{culprit}.log").read_text()
            raise AssertionError(f"rank {culprit} {what}:\n{log[-6000:]}")
        time.sleep(0.05)
    assert [process.returncode for process in ranks] == [0] * len(ranks)
