"""`torchrun ... -m mobilemoe train`: four stages on two ranks, then on four, then on one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pipeline_support import write_inputs

LOSS = 1e-5  # nats: the order of float32 sums, until a token's choice of experts flips
STEPS = 20  # of the first stage, which starts from the same bits
SHARED = ("--set", "parallel.expert_parallel=2")


def train(ranks: int, recipe: Path, out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line on so many ranks; it must succeed."""
    command = [sys.executable, "-m", "mobilemoe", "train", str(recipe), "--out", str(out)]
    if ranks > 1:
        launcher = ["-m", "torch.distributed.run", f"--nproc-per-node={ranks}"]
        command[1:1] = launcher
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return done


def losses(out: Path, stage: str) -> list[float]:
    """The loss of each step in the stage's journal."""
    lines = (out / "stages" / stage / "metrics.jsonl").read_text().splitlines()
    return [event["loss"] for event in map(json.loads, lines) if "grad_norm" in event]


@pytest.mark.slow
def test_ranks_train_what_one_process_trains_and_take_over_from_each_other(tmp_path: Path) -> None:
    recipe = write_inputs(tmp_path)
    # Capacity is per piece: one process takes the rows in the pieces of two.
    train(1, recipe, tmp_path / "one", "--stage", "pretrain", "--set", "run.micro_batch_rows=2")
    many = tmp_path / "many"
    said = train(2, recipe, many, "--stage", "pretrain", *SHARED)
    assert said.stdout.count("Held-out loss") == 1, "one rank speaks"
    assert losses(many, "pretrain")[:STEPS] == pytest.approx(
        losses(tmp_path / "one", "pretrain")[:STEPS], abs=LOSS
    )
    train(4, recipe, many, "--resume", "--stage", "midtrain", *SHARED)
    document = json.loads(train(1, recipe, many, "--resume", "--json").stdout)
    assert [stage["stage"] for stage in document["stages"]] == [
        "pretrain",
        "midtrain",
        "sft",
        "qat",
    ]
    assert set(document["checkpoints"]) == {"base", "sft", "model"}
    assert (many / "model" / "model.safetensors").stat().st_size > 0
