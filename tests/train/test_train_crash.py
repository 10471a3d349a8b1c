"""kill -9 anywhere and a disk that fails at any call: the run goes on to the same bits."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from crash_training import POISONED, STAGES, STEPS
from train_support import batches, stage, steps_of, tiny_model

from mobilemoe.errors import CheckpointError, MobileMoEError
from mobilemoe.train import StepMetrics, Trainer, state_sha256
from mobilemoe.train.state import STATE_FILE

KILLS = 25
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Reports:
    """What `crash_training.py` found, by stage, and where its logs are."""

    home: Path
    by_stage: dict[str, dict[str, Any]]

    def sessions(self, stage_name: str, log: str) -> list[tuple[int, list[tuple[int, str]]]]:
        """Per process: the step it resumed at, and step and digest of every batch it used."""
        sessions: list[tuple[int, list[tuple[int, str]]]] = []
        for line in (self.home / stage_name / f"{log}.log").read_text().splitlines():
            first, second = line.split()
            if first == "start":
                sessions.append((int(second), []))
            else:
                sessions[-1][1].append((int(first), second))
        return sessions


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Reports:
    """25 kills in each of the four stages."""
    home = tmp_path_factory.mktemp("crash")
    command = [sys.executable, str(HERE / "crash_training.py"), str(home), str(KILLS)]
    path = os.pathsep.join([str(HERE), str(HERE.parent)])
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return Reports(home, {line["stage"]: line for line in lines})


@pytest.mark.parametrize("name", STAGES)
def test_25_kills_change_no_bit_of_the_result(name: str, reports: Reports) -> None:
    """Weights, moments, biases, the guard's memory, random state and position."""
    report = reports.by_stage[name]
    assert report["sha256"] == report["whole"]
    assert [path.name for path in (reports.home / name / "killed").iterdir()] == [STATE_FILE]
    assert 3 <= report["leftovers"] < KILLS, "kills should hit saves, and not only saves"


@pytest.mark.parametrize("name", STAGES)
def test_every_killed_run_goes_on_with_the_batch_of_its_step(name: str, reports: Reports) -> None:
    """The digests cover ids, targets, and which targets torch's random state hides."""
    ((_, whole),) = reports.sessions(name, "whole")
    expected = dict(whole)
    assert len(expected) == STEPS
    for step, digest in whole:
        assert digest == expected[step]
    sessions = reports.sessions(name, "killed")
    assert len(sessions) == KILLS + 1
    assert sessions[-1][1][-1][0] == STEPS - 1
    for start, used in sessions:
        assert not used or used[0][0] == start
        assert all(digest == expected[step] for step, digest in used)


@pytest.mark.parametrize("name", STAGES)
def test_the_runs_that_are_killed_also_go_back_by_themselves(name: str, reports: Reports) -> None:
    """So the kills fall into detours too: the poisoned steps are met twice."""
    ((_, whole),) = reports.sessions(name, "whole")
    met = Counter(step for step, _ in whole)
    assert {step for step in met if met[step] > 1} >= POISONED & set(range(30, 33))


@dataclass
class Disk:
    """Lets the `nth` call of a save fail, and counts them all."""

    nth: int
    calls: list[str] = field(default_factory=list)

    def call(self, name: str) -> None:
        """Note a call; raise if its turn has come."""
        self.calls.append(name)
        if len(self.calls) == self.nth:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def attach(self, patch: pytest.MonkeyPatch) -> None:
        """Put itself before the system's calls."""
        disk = self

        class Raw(io.FileIO):
            def write(self, data: Any) -> int:
                disk.call("write")
                return super().write(data)

        def fdopen(handle: int, mode: str) -> io.BufferedWriter:
            return io.BufferedWriter(Raw(handle, mode))

        patch.setattr(os, "fdopen", fdopen)
        for name in ("open", "fsync", "chmod", "replace"):
            patch.setattr(os, name, self._before(name, getattr(os, name)))

    def _before(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.call(name)
            return real(*args, **kwargs)

        return call


def half_trained(folder: Path) -> Trainer:
    """A trainer at step 4 whose state of step 2 is in `folder`."""
    trainer = Trainer(tiny_model(), stage(), batches)
    for event in trainer.run(folder):
        if isinstance(event, StepMetrics) and event.step == 2:
            trainer.save(folder)
        if isinstance(event, StepMetrics) and event.step == 4:
            break
    return trainer


def test_whatever_call_of_a_save_fails_a_whole_state_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = half_trained(tmp_path / "run")
    old = state_sha256(tmp_path / "run")
    trainer.save(tmp_path / "other")
    new = state_sha256(tmp_path / "other")
    nth, failed = 0, []
    while True:
        nth, disk = nth + 1, Disk(nth + 1)
        with monkeypatch.context() as patch:
            disk.attach(patch)
            try:
                assert trainer.save(tmp_path / "run")
                break
            except MobileMoEError as error:
                assert "Input/output error" in error.message
        failed.append(disk.calls[-1])
        renamed = "replace" in disk.calls[:-1]
        assert state_sha256(tmp_path / "run") == (new if renamed else old)
        assert [path.name for path in (tmp_path / "run").iterdir()] == [STATE_FILE]
    assert set(failed) == {"open", "write", "fsync", "chmod", "replace"}
    assert failed.count("write") > 10


@pytest.mark.parametrize("call", ["open", "write", "fsync", "replace"])
def test_a_run_whose_save_failed_ends_with_the_same_bits(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = half_trained(tmp_path / "run")
    counted = Disk(10**6)
    with monkeypatch.context() as patch:
        counted.attach(patch)
        trainer.save(tmp_path / "other")
    nth = len(counted.calls) - counted.calls[::-1].index(call)
    with monkeypatch.context() as patch:
        Disk(nth).attach(patch)
        with pytest.raises(MobileMoEError):
            trainer.save(tmp_path / "run")
    again = Trainer(tiny_model(seed=7), stage(), batches)
    assert again.resume(tmp_path / "run")
    for folder, finishing in (("again", again), ("clean", Trainer(tiny_model(), stage(), batches))):
        steps_of(finishing)
        finishing.save(tmp_path / folder)
    assert state_sha256(tmp_path / "again") == state_sha256(tmp_path / "clean")


def test_what_a_killed_save_left_is_removed_by_the_next_one(tmp_path: Path) -> None:
    trainer = Trainer(tiny_model(), stage(), batches)
    (tmp_path / f".{STATE_FILE}.abc123.tmp").write_bytes(b"half")
    (tmp_path / "notes.tmp").write_text("mine")
    trainer.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.tmp", STATE_FILE]


def test_the_digest_tells_values_and_not_the_layout_of_the_file(tmp_path: Path) -> None:
    trainer = Trainer(tiny_model(), stage(), batches)
    trainer.save(tmp_path / "a")
    tensors, progress = trainer._tensors(), {"step": 1}
    for name, order in (("b", tensors), ("c", dict(reversed(tensors.items())))):
        trainer._store.save(tmp_path / name, order, progress)
    assert state_sha256(tmp_path / "b") == state_sha256(tmp_path / "c")
    before = state_sha256(tmp_path / "b")
    trainer._store.save(tmp_path / "b", tensors, {"step": 2})
    assert state_sha256(tmp_path / "b") != before
    tensors["bias.0"][0] += 1e-6
    trainer._store.save(tmp_path / "b", tensors, progress)
    assert state_sha256(tmp_path / "b") != before
    with pytest.raises(CheckpointError, match="no training state"):
        state_sha256(tmp_path / "nothing")


def test_the_state_of_another_stage_is_refused(tmp_path: Path) -> None:
    Trainer(tiny_model(), stage(), batches).save(tmp_path)
    other = Trainer(tiny_model(), STAGES["sft"], batches)
    with pytest.raises(CheckpointError, match="stage 'test'; expected 'sft'"):
        other.resume(tmp_path)
