"""What a run needs is said before it starts: estimates against measured runs, and refusals."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest
from memory_of_training import CASES
from train_support import batches, stage, tiny_model

from fake_system import write_file
from mobilemoe.errors import MobileMoEError
from mobilemoe.plan.cluster import Layout
from mobilemoe.recipe import Recipe, load_recipe
from mobilemoe.train import Trainer
from mobilemoe.train.needs import cpu_memory, disk, state_bytes
from mobilemoe.train.preflight import MEMORY_FACTOR, Room, check_memory, check_run, cpu_room

HERE = Path(__file__).parent
GB = 10**9
Usage = namedtuple("Usage", "total used free")


def nano(*overrides: str) -> Recipe:
    """The nano recipe, on the CPU whatever the machine has."""
    return load_recipe("nano", ("run.device=cpu", *overrides))


def machine(root: Path, available: int) -> Path:
    """A machine with so many bytes of memory left."""
    kilobytes = available // 1024
    text = f"MemTotal: {2 * kilobytes} kB\nMemAvailable: {kilobytes} kB"
    write_file(root, "proc/meminfo", text)
    return root


def fullest(recipe: Recipe) -> int:
    """Bytes of the stage that needs most."""
    layout = Layout.of(recipe, 1)
    return max(cpu_memory(recipe, each, layout).total for each in recipe.stages)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux counts memory there")
def test_planned_memory_is_what_training_takes_within_the_stated_factor() -> None:
    path = os.pathsep.join([str(HERE), str(HERE.parent)])
    done = subprocess.run(
        [sys.executable, str(HERE / "memory_of_training.py")],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    cases = [json.loads(line) for line in done.stdout.splitlines()]
    assert [case["case"] for case in cases] == list(CASES)
    for case in cases:
        ratio = case["planned"] / case["grown"]
        assert 1 / MEMORY_FACTOR < ratio < MEMORY_FACTOR, case


def test_a_state_is_as_large_as_planned(tmp_path: Path) -> None:
    trainer = Trainer(tiny_model(), stage(), batches)
    trainer.save(tmp_path)
    written = (tmp_path / "state.safetensors").stat().st_size
    parameters = sum(p.numel() for p in trainer.model.parameters())
    assert 12 * parameters < written < 12 * parameters + 40_000
    recipe = nano()
    assert state_bytes(recipe) == pytest.approx(12 * recipe.model.total_params)


def test_enough_of_everything_says_nothing(tmp_path: Path) -> None:
    assert check_run(nano(), tmp_path / "run", machine(tmp_path, 64 * GB)) == ()


def test_too_little_memory_is_refused_with_a_setting_that_helps(tmp_path: Path) -> None:
    recipe = nano("pretrain.batch_tokens=32768")
    root = machine(tmp_path, GB)
    with pytest.raises(MobileMoEError, match="memory of the machine") as caught:
        check_run(recipe, tmp_path / "run", root)
    assert "needs about" in caught.value.message
    assert "the largest part is activations" in caught.value.message
    setting, _, _ = caught.value.hint.partition(": then")
    assert setting.startswith("--set run.micro_batch_rows=")
    mended = nano(
        "pretrain.batch_tokens=32768",
        setting.removeprefix("--set "),
    )
    assert check_run(mended, tmp_path / "run", root) == ()
    assert fullest(mended) <= GB < fullest(recipe)


def test_memory_that_may_be_short_is_a_warning(tmp_path: Path) -> None:
    recipe = nano()
    need = fullest(recipe)
    (warning,) = check_run(recipe, tmp_path / "run", machine(tmp_path, int(need / 1.2)))
    assert "needs about" in warning
    assert "--set run." in warning
    with pytest.raises(MobileMoEError):
        check_run(recipe, tmp_path / "run", machine(tmp_path, int(need / MEMORY_FACTOR) - 2048))


def test_a_group_limit_counts_too(tmp_path: Path) -> None:
    root = machine(tmp_path, 64 * GB)
    write_file(root, "proc/self/cgroup", "0::/job")
    write_file(root, "proc/self/mountinfo", "1 0 0:1 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw")
    write_file(root, "sys/fs/cgroup/job/memory.max", str(10**8))
    write_file(root, "sys/fs/cgroup/job/memory.current", "0")
    with pytest.raises(MobileMoEError, match="cgroup memory limit"):
        check_run(nano(), tmp_path / "run", root)


def test_processes_of_one_machine_share_its_memory(tmp_path: Path) -> None:
    root = machine(tmp_path, 8 * GB)
    rooms = cpu_room(1, root), cpu_room(4, root)
    assert rooms[0] is not None
    assert rooms[1] is not None
    assert rooms[1].left == rooms[0].left // 4
    assert cpu_room(1, tmp_path / "nothing") is None


def test_where_no_setting_helps_the_hint_says_so() -> None:
    recipe = nano()
    with pytest.raises(MobileMoEError, match="a toy") as caught:
        check_memory(recipe, Layout.of(recipe, 1), Room("a toy", 10**6))
    assert caught.value.hint.startswith("take a smaller model")


@pytest.mark.parametrize("config", ["nano", "s"])
def test_fewer_rows_and_checkpointing_need_less(config: str) -> None:
    recipe = load_recipe(config)
    each = recipe.stages[0]
    plain = Layout(1, precision="fp32", micro_batch_rows=4)
    fewer = Layout(1, precision="fp32", micro_batch_rows=1)
    again = Layout(1, precision="fp32", micro_batch_rows=4, activation_checkpointing=True)
    need = cpu_memory(recipe, each, plain).total
    assert cpu_memory(recipe, each, fewer).total < need
    assert cpu_memory(recipe, each, again).total < need


def free_disk(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    """Let every disk have so much room."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**15, 0, free))


def test_too_little_disk_is_refused_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, root = nano(), machine(tmp_path, 64 * GB)
    needed = disk(recipe).total
    free_disk(monkeypatch, needed)
    check_run(recipe, tmp_path / "deep" / "run", root)
    free_disk(monkeypatch, needed - 1)
    with pytest.raises(MobileMoEError, match="the disk has") as caught:
        check_run(recipe, tmp_path / "deep" / "run", root)
    assert "training states" in caught.value.message
    assert "--out" in caught.value.hint
    assert not (tmp_path / "deep").exists()


def test_what_a_resumed_run_has_written_is_not_needed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, root, run = nano(), machine(tmp_path, 64 * GB), tmp_path / "run"
    done = run / "stages" / "pretrain" / "state.safetensors"
    done.parent.mkdir(parents=True)
    done.write_bytes(b"x" * 10**6)
    free_disk(monkeypatch, disk(recipe).total - 10**6)
    check_run(recipe, run, root)
    free_disk(monkeypatch, disk(recipe).total - 10**6 - 1)
    with pytest.raises(MobileMoEError, match="the disk has"):
        check_run(recipe, run, root)


def test_many_processes_leave_more_states() -> None:
    assert disk(nano(), ranks=4).total > 2 * disk(nano()).total
