"""Which silent ranks are ended by those beside them, and which are left alone."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from mobilemoe.train.parallel.siblings import end_siblings, this_place

ASK = """
import sys
from mobilemoe.train.parallel.siblings import end_siblings
print(end_siblings(sys.argv[1:]))
"""


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A stopped process, which no gentle signal ends."""
    with subprocess.Popen(["sleep", "600"]) as process:
        process.send_signal(signal.SIGSTOP)
        yield process
        process.kill()


def place(number: int, host: str = platform.node()) -> str:
    """Where a rank says that it is."""
    return f"{host}, process {number}"


def asked(*places: str, by_torchrun: bool = True) -> str:
    """Let a process beside the sleeper end what is at `places`; return what it says."""
    environment = dict(os.environ)
    environment.pop("TORCHELASTIC_RUN_ID", None)
    if by_torchrun:
        environment["TORCHELASTIC_RUN_ID"] = "test"
    command = [sys.executable, "-c", ASK, *places]
    return subprocess.run(
        command, env=environment, check=True, capture_output=True, text=True
    ).stdout.strip()


def test_a_stopped_process_of_the_same_torchrun_is_ended(sleeper: subprocess.Popen[bytes]) -> None:
    assert asked(place(sleeper.pid)) == f"({sleeper.pid},)"
    assert sleeper.wait(30) == -signal.SIGKILL


def test_all_others_are_left_alone(sleeper: subprocess.Popen[bytes]) -> None:
    elsewhere = place(sleeper.pid, "another-machine")
    assert asked(elsewhere, place(os.getpid()), place(2**22 + 1)) == "()"
    assert asked(place(sleeper.pid), by_torchrun=False) == "()"
    assert sleeper.poll() is None


def test_a_process_does_not_end_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")
    assert end_siblings([this_place()]) == ()
