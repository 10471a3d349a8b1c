"""The default thread count: allowed CPUs, capped by the cgroup quota."""

from __future__ import annotations

import os

import pytest

from mobilemoe.engine import default_threads


@pytest.fixture
def many_cpus(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(12)), raising=False)


def write(root, path, text):
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text + "\n")


def test_without_a_quota_every_allowed_cpu(tmp_path, many_cpus):
    assert default_threads(tmp_path) == 12
    write(tmp_path, "sys/fs/cgroup/cpu.max", "max 100000")
    assert default_threads(tmp_path) == 12


@pytest.mark.parametrize(("quota", "threads"), [("250000", 2), ("50000", 1), ("9900000", 12)])
def test_quota_of_the_root_cgroup(tmp_path, many_cpus, quota, threads):
    write(tmp_path, "sys/fs/cgroup/cpu.max", f"{quota} 100000")
    assert default_threads(tmp_path) == threads


def test_the_tightest_ancestor_counts(tmp_path, many_cpus):
    write(tmp_path, "proc/self/cgroup", "0::/user/job")
    write(tmp_path, "sys/fs/cgroup/user/cpu.max", "300000 100000")
    write(tmp_path, "sys/fs/cgroup/user/job/cpu.max", "700000 100000")
    assert default_threads(tmp_path) == 3


def test_version_1_cgroups(tmp_path, many_cpus):
    write(tmp_path, "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "400000")
    write(tmp_path, "sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000")
    assert default_threads(tmp_path) == 4
    write(tmp_path, "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1")
    assert default_threads(tmp_path) == 12


def test_a_cgroup_name_outside_utf8_is_no_obstacle(tmp_path, many_cpus):
    write(tmp_path, "proc/self/cgroup", "0::/")
    (tmp_path / "proc/self/cgroup").write_bytes(b"0::/caf\xe9\n")
    assert default_threads(tmp_path) == 12


def test_this_machine():
    assert 1 <= default_threads() <= (os.cpu_count() or 1)
