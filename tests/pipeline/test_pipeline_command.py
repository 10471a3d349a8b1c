"""`mobilemoe train` as a user types it: stop, resume, report, and what it refuses."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pipeline_support import write_inputs

from command_line import mobilemoe

PROGRAM = Path(sys.executable).with_name("mobilemoe")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny recipe."""
    folder = tmp_path_factory.mktemp("command")
    write_inputs(folder)
    return folder


def wait_for(path: Path, lines: int) -> None:
    """Return when `path` has so many lines."""
    for _ in range(1200):
        if path.exists() and path.read_text(encoding="utf-8").count("\n") >= lines:
            return
        time.sleep(0.05)
    raise AssertionError(f"{path} has not got {lines} lines in a minute")


def test_ctrl_c_saves_and_resume_finishes_and_the_report_shows_it(place: Path) -> None:
    recipe = ["train", "tiny.toml", "--out", "run", "--set", "pretrain.tokens=25600"]
    with subprocess.Popen(
        [PROGRAM, *recipe], cwd=place, stderr=subprocess.PIPE, text=True
    ) as process:
        wait_for(place / "run/stages/pretrain/metrics.jsonl", 3)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "everything is saved in run. --resume goes on" in said
    done = mobilemoe(*recipe, "--resume", "--json", cwd=place)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert [stage["stage"] for stage in document["stages"]] == [
        "pretrain",
        "midtrain",
        "sft",
        "qat",
    ]
    assert document["checkpoints"]["model"] == "run/model"
    assert "resumed at step" in done.stderr
    report = mobilemoe("train", "--report", "run", cwd=place)
    assert report.stdout == "run/report.html\n", report.stderr
    assert "pretrain" in (place / "run/report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train"], "give a RECIPE"),
        (["train", "tiny.toml", "--gpus", "8"], "--gpus cannot go with a run without --dry-run"),
        (["train", "nano", "--report", "run"], "RECIPE cannot go with --report"),
        (["train", "nano", "--dry-run"], "--dry-run needs --gpus and --gpu"),
        (["train", "nano", "--dry-run", "--resume"], "--resume cannot go with --dry-run"),
    ],
)
def test_what_would_be_ignored_is_a_usage_error(
    arguments: list[str], says: str, tmp_path: Path
) -> None:
    done = mobilemoe(*arguments, cwd=tmp_path, env={"COLUMNS": "200", "PATH": "/usr/bin"})
    assert done.returncode == 2
    assert says in " ".join(done.stderr.split())
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train", "giga"], "no recipe 'giga'; allowed: a TOML file, or one of"),
        (["train", "nano", "--set", "pretrain.lrate=1"], "pretrain.lrate"),
        (["train", "nano", "--dry-run", "--gpus", "8", "--gpu", "abacus"], "abacus"),
        (["train", "--report", "nowhere"], "nowhere"),
    ],
)
def test_a_bad_value_is_one_error(arguments: list[str], says: str, tmp_path: Path) -> None:
    done = mobilemoe(*arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
