"""Caches that are too small, full or closed: real file systems of a few kilobytes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from hub_support import OWNED, WEIGHTS, Machine, call, check_error, single

from hub_server import Repo

SMALL_DISK = 500_000  # bytes: room for everything but the weights


def mount(folder: Path, options: str) -> list[str]:
    """Return a command that runs another one with a small disk at `folder`, or skip the test."""
    folder.mkdir()
    disk = f"mount -t tmpfs -o {options} none {folder}"
    command = ["unshare", "-rm", "sh", "-c"]
    try:
        allowed = subprocess.run([*command, disk], capture_output=True).returncode == 0
    except FileNotFoundError:
        allowed = False
    if not allowed:
        pytest.skip("this system lets nobody mount a small disk")
    return [*command, f'{disk} && exec "$@"', "sh"]


def expect_error_on(machine: Machine, prefix: list[str], *words: str) -> dict[str, str]:
    """Fetch in a process behind `prefix`, which must fail."""
    running = machine.start(call(OWNED), prefix=prefix, streams={"stdout": subprocess.PIPE})
    assert running.communicate(timeout=60) == ("", None)
    (result,) = json.loads((machine.folder / "results.json").read_text())
    return check_error(result, *words)


def test_a_disk_without_room_is_refused_before_the_weights(server, machine):
    server.repos[OWNED] = Repo.of(single())
    disk = mount(machine.folder / "hf", f"size={SMALL_DISK}")
    error = expect_error_on(machine, disk, "the disk is too small", "0.8 MB more", "HF_HOME")
    assert f"{machine.cache} has 0." in error["message"]
    assert server.fetched("store") == []


def test_what_is_on_the_disk_needs_no_more_room(server, machine):
    """A new commit with the same weights fits beside the old one."""
    repo = server.repos[OWNED] = Repo.of(single())
    disk = mount(machine.folder / "hf", f"size={len(WEIGHTS) + SMALL_DISK}")
    new = repo.commit({**single(), "tokenizer.json": b"new"}, ref="next")
    running = machine.start(call(OWNED), call(OWNED, "next"), prefix=disk)
    assert running.wait(60) == 0
    results = json.loads((machine.folder / "results.json").read_text())
    assert [Path(result["value"]).name for result in results] == [repo.refs["main"], new]


def test_a_cache_without_room_is_refused_whatever_its_size(server, machine):
    claims = {"model.safetensors": 10**15}
    server.repos[OWNED] = Repo.of(single(), claims=claims)
    machine.expect_error(OWNED, words=["the disk is too small", "1,000,000,000.0 MB more"])
    assert server.fetched("store") == []


def test_a_disk_that_fills_up_in_the_middle(server, machine):
    """The stated size is too small, so that the disk is really written full."""
    server.repos[OWNED] = Repo.of(single(), claims={"model.safetensors": 100})
    disk = mount(machine.folder / "hf", f"size={SMALL_DISK}")
    expect_error_on(machine, disk, "the disk is full", str(machine.cache), "run again", "HF_HOME")
    assert len(server.fetched("store")) == 1
    server.repos[OWNED].claims.clear()
    assert (machine.folder_of(OWNED) / "model.safetensors").read_bytes() == WEIGHTS


def test_a_disk_that_cannot_be_written(server, machine):
    server.repos[OWNED] = Repo.of(single())
    disk = mount(machine.folder / "hf", "ro")
    expect_error_on(machine, disk, f"cannot write to the cache {machine.cache}", "HF_HOME")


def test_a_cache_below_a_file(server, machine):
    server.repos[OWNED] = Repo.of(single())
    (machine.folder / "hf").write_text("a file")
    machine.expect_error(OWNED, words=[f"cannot write to the cache {machine.cache}", "permissions"])


def test_a_complete_copy_on_a_disk_that_cannot_be_written(server, machine):
    """Many machines share one cache that only its owner may change."""
    server.repos[OWNED] = Repo.of(single())
    folder = machine.folder_of(OWNED)
    (machine.folder / "copy").mkdir()
    bind = (
        f"mount --bind {machine.folder}/hf {machine.folder}/hf && "
        f'mount -o remount,bind,ro {machine.folder}/hf && exec "$@"'
    )
    prefix = ["unshare", "-rm", "sh", "-c", bind, "sh"]
    running = machine.start(call(OWNED), prefix=prefix)
    if running.wait(60) != 0:
        pytest.skip("this system lets nobody mount")
    (result,) = json.loads((machine.folder / "results.json").read_text())
    assert result == {"value": str(folder)}
