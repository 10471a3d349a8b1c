"""The promise of a minute, kept with every default: ranks killed, stopped and interrupted."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from lost_rank import SAVE_EVERY_S, lose_a_rank
from pipeline_support import write_inputs

from command_line import mobilemoe
from mobilemoe.recipe import Parallel

PROMISED_S = 60
TORCHRUN_S = 30  # that it gives a process to end after being asked to
LENGTH = "pretrain.tokens=1024000"
INTERVALS = 2.5  # checkpoints come with the next step, and take time themselves

faults = pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])


def test_a_minute_is_enough_for_a_rank_that_only_torchrun_can_end() -> None:
    """A stopped rank alone on its machine: noticed after the timeout, ended by its torchrun."""
    assert Parallel().hang_timeout_s + TORCHRUN_S <= PROMISED_S - 10


@pytest.mark.slow
@faults
def test_a_lost_rank_restarts_the_job_from_its_last_checkpoint(
    number: signal.Signals, tmp_path: Path
) -> None:
    """The seconds are the promise, so here they are asserted."""
    found = lose_a_rank(write_inputs(tmp_path), tmp_path / "run", number, 1, LENGTH)
    assert found.restarted_s is not None
    assert found.restarted_s < PROMISED_S
    assert found.resumed_step is not None
    assert 0 < found.resumed_step <= found.step
    assert found.journal_s is not None
    assert found.journal_s < INTERVALS * SAVE_EVERY_S


@pytest.mark.slow
@faults
def test_a_lost_rank_ends_a_job_that_may_not_restart(
    number: signal.Signals, tmp_path: Path
) -> None:
    found = lose_a_rank(write_inputs(tmp_path), tmp_path / "run", number, 0, LENGTH)
    assert found.status != 0
    assert found.ended_s is not None
    assert found.ended_s < PROMISED_S


@pytest.mark.slow
def test_ctrl_c_saves_on_all_ranks_and_resume_goes_on(tmp_path: Path) -> None:
    recipe, out = write_inputs(tmp_path), tmp_path / "run"
    found = lose_a_rank(recipe, out, signal.SIGINT, 0, "pretrain.tokens=256000")
    assert found.ended_s is not None
    assert found.ended_s < TORCHRUN_S, "torchrun kills what has not saved by then"
    assert "everything is saved" in out.with_suffix(".0.log").read_text()
    options = ("--stage", "pretrain", "--resume", "--set", "pretrain.tokens=256000")
    done = mobilemoe("train", str(recipe), "--out", str(out), *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "resumed at step" in done.stderr
