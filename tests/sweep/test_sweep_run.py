"""A real sweep through the command line: rows, resuming, workers, interrupts."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from sweep_cases import KEYS, SMALL

from command_line import mobilemoe
from mobilemoe.errors import MobileMoEError
from mobilemoe.sweep import Rows, carry_out, parse_sweep, read_rows
from mobilemoe.sweep.workers import train_all

VARYING = {"seconds"}


@pytest.fixture(scope="module")
def prepared(demo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sweep's file and, beside its table, the prepared corpus."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "small.toml").write_text(SMALL)
    shutil.copytree(demo_folder / "runs" / "demo" / "data", folder / "out" / "data")
    return folder


def ended(process: str, patience_s: float = 20.0) -> bool:
    """Whether the process is gone; the one that tracks resources leaves after its parent."""
    until = time.monotonic() + patience_s
    while (exists := Path(f"/proc/{process}").exists()) and time.monotonic() < until:
        time.sleep(0.05)
    return not exists


def table(path: Path) -> dict[str, dict[str, Any]]:
    """Return the rows by key, without what depends on the clock."""
    return {
        row["key"]: {key: value for key, value in row.items() if key not in VARYING}
        for row in read_rows(path)
    }


@pytest.fixture(scope="module")
def finished(prepared: Path) -> Path:
    """The table of a sweep that ran through, with two workers."""
    out = prepared / "out" / "rows.jsonl"
    done = mobilemoe(
        *("plan", "sweep", "small.toml", "--out", str(out), "--workers", "2", "--json"),
        cwd=prepared,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "sweep": "small",
        "rows": str(out),
        "runs": len(KEYS),
        "failed": [],
    }
    assert f"[{len(KEYS)}/{len(KEYS)}" in done.stderr
    return out


def test_every_run_has_a_row_that_says_what_was_trained(finished: Path) -> None:
    rows, sweep = table(finished), parse_sweep(SMALL)
    assert set(rows) == set(KEYS)
    for run in sweep.runs():
        row, config = rows[run.key], run.config(sweep.training)
        assert row["active_params"] == config.active_params
        assert row["weight_bytes"] == config.weight_bytes("int4")
        assert (row["seed"], row["tokens"]) == (run.seed, run.tokens)
        assert row["loss"] == pytest.approx(
            0.5 * row["heldout"]["code"] + 0.5 * row["heldout"]["math"]
        )
        assert 0 < row["loss"] < 8.4  # fresh weights know nothing: ln 4096 = 8.3
        assert row["refused_steps"] == 0


def test_seeds_and_choices_differ(finished: Path) -> None:
    losses = [row["loss"] for row in table(finished).values()]
    assert len(set(losses)) == len(KEYS)


def test_one_worker_after_a_loss_gives_the_same_rows(
    finished: Path, prepared: Path, tmp_path: Path
) -> None:
    """Two rows are there, one of them half; the rest is trained again, by one process."""
    out, lines = prepared / "out" / "second.jsonl", finished.read_bytes().splitlines(keepends=True)
    out.write_bytes(lines[0] + lines[1] + lines[2][:40])
    events = list(carry_out(parse_sweep(SMALL), out, prepared / "out" / "data"))
    assert [event.progress.done for event in events] == [3, 4, 5]
    assert table(out) == table(finished)


def test_another_training_under_the_same_name_is_refused(finished: Path, prepared: Path) -> None:
    before = finished.read_bytes()
    changed = parse_sweep(SMALL.replace("lr = 4e-3", "lr = 3e-3"))
    with pytest.raises(MobileMoEError, match="trained with other settings"):
        list(carry_out(changed, finished, prepared / "out" / "data"))
    assert finished.read_bytes() == before


def kill_the_first_worker(stop: threading.Event) -> None:
    """Kill the first process of the sweep as soon as it is there, as the system might."""
    while not stop.wait(0.05):
        for folder in Path("/proc/self/task").iterdir():
            for child in (folder / "children").read_text().split():
                if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                    os.kill(int(child), signal.SIGKILL)
                    return


def test_a_worker_that_dies_is_an_outcome_and_the_others_go_on(prepared: Path) -> None:
    sweep, stop = parse_sweep(SMALL), threading.Event()
    killer = threading.Thread(target=kill_the_first_worker, args=(stop,))
    killer.start()
    runs = sweep.runs()[:2]
    outcomes = list(train_all(runs, sweep.training, prepared / "out" / "data", 1, 1))
    stop.set()
    killer.join()
    assert [outcome.run for outcome in outcomes] == list(runs)
    assert outcomes[0].row is None
    assert outcomes[0].error == "the process ended with status -9"
    assert outcomes[1].row is not None and outcomes[1].row["loss"] > 0


def test_ctrl_c_keeps_finished_rows_and_leaves_no_process(prepared: Path, finished: Path) -> None:
    out = prepared / "out" / "interrupted.jsonl"
    program = str(Path(sys.executable).with_name("mobilemoe"))
    running = subprocess.Popen(
        [program, "plan", "sweep", "small.toml", "--out", str(out), "--workers", "1"],
        cwd=prepared,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert running.stderr is not None
    first = running.stderr.readline()
    assert first.startswith("[1/5")
    children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
    running.send_signal(signal.SIGINT)
    assert running.wait(60) == 130
    assert "interrupted" in running.stderr.read()
    assert children and all(ended(child) for child in children)
    kept = table(out)
    assert 1 <= len(kept) < len(KEYS)
    assert all(table(finished)[key] == row for key, row in kept.items())
    rows = Rows(out)
    rows.close()
    assert set(rows.done) == set(kept)


def test_the_list_of_runs(prepared: Path) -> None:
    done = mobilemoe("plan", "sweep", "small.toml", "--dry-run", "--json", cwd=prepared)
    assert [run["key"] for run in json.loads(done.stdout)["runs"]] == list(KEYS)
    done = mobilemoe("plan", "sweep", "small.toml", "--dry-run", cwd=prepared)
    assert "5 runs, 2,560 tokens" in done.stdout
