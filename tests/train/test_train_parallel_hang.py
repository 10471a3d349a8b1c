"""Real processes that are stopped, stuck or killed: the job ends in time, or goes on by itself."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from parallel_job import EVERY, FAULTY_STEP
from parallel_support import FOLDER, free_ports
from safetensors.torch import load_file

from mobilemoe.train.parallel.watchdog import HUNG

PROMISED_S = 60  # a hung rank ends the job within a minute of the fault; plus the start
START_S = 240  # of Python and torch, on a machine that does much else


@contextmanager
def two_ranks(out: Path, fault: str) -> Iterator[list[subprocess.Popen[str]]]:
    """Start two ranks without torchrun; none survives the block."""
    names = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_ports(1)[0]}
    command = [sys.executable, str(FOLDER / "parallel_job.py"), str(out), fault]
    ranks = []
    for rank in ("0", "1"):
        environment = os.environ | names | {"RANK": rank, "OMP_NUM_THREADS": "1"}
        with (out / f"rank{rank}.log").open("w") as log:
            ranks.append(subprocess.Popen(command, env=environment, stderr=log, text=True))
    try:
        yield ranks
    finally:
        for process in ranks:
            process.kill()
            process.wait()


def test_a_stopped_rank_ends_the_job_with_its_name_and_step(tmp_path: Path) -> None:
    with two_ranks(tmp_path, "stop") as ranks:
        assert ranks[0].wait(START_S + PROMISED_S) == HUNG
        assert ranks[1].poll() is None, "it sleeps, and whoever started it ends it"
    said = (tmp_path / "rank0.log").read_text()
    assert said.count("error:") == 1
    assert f"process {ranks[1].pid}) gave no sign of life" in said
    assert f"rank 1 ({os.uname().nodename}" in said
    assert f"in step {FAULTY_STEP}" in said
    assert "--resume" in said


@pytest.mark.slow
def test_a_stuck_rank_is_named_with_its_place(tmp_path: Path) -> None:
    with two_ranks(tmp_path, "spin") as ranks:
        codes = {process.wait(START_S + PROMISED_S) for process in ranks}
        assert HUNG in codes
    said = "".join((tmp_path / f"rank{rank}.log").read_text() for rank in (0, 1))
    assert f"no rank has advanced for 6 s in step {FAULTY_STEP}: rank 1" in said
    assert "parallel_job.py" in said
    assert "in suffer" in said


def torchrun(out: Path, fault: str) -> subprocess.CompletedProcess[str]:
    """Run the job as a user does, with one restart allowed."""
    out.mkdir()
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    command += ["--max-restarts=1", "--shutdown-timeout=5", "--rdzv-backend=c10d"]
    command += ["--rdzv-endpoint=127.0.0.1:0", str(FOLDER / "parallel_job.py"), str(out), fault]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=2 * START_S
    )


@pytest.mark.slow
def test_torchrun_goes_on_from_the_last_checkpoint_to_the_same_bits(tmp_path: Path) -> None:
    for fault in ("none", "kill", "stop"):
        done = torchrun(tmp_path / fault, fault)
        assert done.returncode == 0, done.stderr[-4000:]
        if fault != "none":
            assert (tmp_path / fault / "attempt1-rank0.txt").read_text() == str(EVERY)
        expected = load_file(tmp_path / "none" / "final" / "state.safetensors")
        actual = load_file(tmp_path / fault / "final" / "state.safetensors")
        assert actual.keys() == expected.keys()
        assert all(torch.equal(actual[name], tensor) for name, tensor in expected.items())
