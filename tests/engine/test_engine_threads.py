"""The default thread count: allowed CPUs, big cores, one thread per core, the cgroup quota."""

from __future__ import annotations

import os
import sys
from dataclasses import replace

import pytest

from fake_system import write_cpus, write_file
from mobilemoe.engine import default_threads
from mobilemoe.engine.cgroups import group_folders
from mobilemoe.engine.cores import apple_performance_cores
from mobilemoe.engine.threads import MAX_THREADS, oversubscription, thread_plan

PHONE = {**dict.fromkeys(range(4), 325), **dict.fromkeys(range(4, 7), 830), 7: 1024}


@pytest.fixture
def many_cpus(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(12)), raising=False)


def test_without_a_quota_every_allowed_cpu(tmp_path, many_cpus):
    assert default_threads(tmp_path) == 12
    write_file(tmp_path, "sys/fs/cgroup/cpu.max", "max 100000")
    assert default_threads(tmp_path) == 12


@pytest.mark.parametrize(
    ("quota", "threads"), [("250000", 2), ("150000", 1), ("50000", 1), ("9900000", 12)]
)
def test_quota_of_the_root_cgroup(tmp_path, many_cpus, quota, threads):
    write_file(tmp_path, "sys/fs/cgroup/cpu.max", f"{quota} 100000")
    assert default_threads(tmp_path) == threads


def test_the_tightest_ancestor_counts(tmp_path, many_cpus):
    write_file(tmp_path, "proc/self/cgroup", "0::/user/job")
    write_file(tmp_path, "sys/fs/cgroup/user/cpu.max", "300000 100000")
    write_file(tmp_path, "sys/fs/cgroup/user/job/cpu.max", "700000 100000")
    assert default_threads(tmp_path) == 3


def test_version_1_cgroups(tmp_path, many_cpus):
    write_file(tmp_path, "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "400000")
    write_file(tmp_path, "sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000")
    assert default_threads(tmp_path) == 4
    write_file(tmp_path, "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1")
    assert default_threads(tmp_path) == 12


def test_version_1_has_a_path_per_controller(tmp_path, many_cpus):
    write_file(tmp_path, "proc/self/cgroup", "5:memory:/m\n4:cpu,cpuacct:/a/b\n0::/u")
    write_file(tmp_path, "sys/fs/cgroup/cpu/a/b/cpu.cfs_quota_us", "200000")
    write_file(tmp_path, "sys/fs/cgroup/cpu/a/b/cpu.cfs_period_us", "100000")
    assert default_threads(tmp_path) == 2
    assert tmp_path / "sys/fs/cgroup/memory/m" in group_folders("memory", tmp_path)
    assert tmp_path / "sys/fs/cgroup/unified/u" in group_folders("memory", tmp_path)


def test_a_group_path_cannot_lead_out_of_its_hierarchy(tmp_path):
    write_file(tmp_path, "proc/self/cgroup", "0::/../../etc")
    top = tmp_path / "sys/fs/cgroup"
    assert all(top in (folder, *folder.parents) for folder in group_folders("cpu", tmp_path))
    assert all(".." not in folder.parts for folder in group_folders("cpu", tmp_path))


def test_a_cgroup_name_outside_utf8_is_no_obstacle(tmp_path, many_cpus):
    write_file(tmp_path, "proc/self/cgroup", "0::/")
    (tmp_path / "proc/self/cgroup").write_bytes(b"0::/caf\xe9\n")
    assert default_threads(tmp_path) == 12


def test_a_phone_uses_its_big_and_middle_cores(tmp_path):
    write_cpus(tmp_path, 8, capacity=PHONE)
    plan = thread_plan(tmp_path, affinity=range(8))
    assert (plan.big_cpus, plan.little_cpus) == ((4, 5, 6, 7), (0, 1, 2, 3))
    assert (plan.threads, plan.core_source) == (4, "cpu_capacity")
    assert "8 of 8 CPUs may be used" in plan.reason
    assert "4 of them little cores, which would hold up the big ones" in plan.reason


def test_an_affinity_that_mixes_cores_uses_the_big_ones(tmp_path):
    write_cpus(tmp_path, 8, capacity=PHONE)
    plan = thread_plan(tmp_path, affinity={2, 3, 6, 7})
    assert (plan.threads, plan.allowed_cpus) == (2, (2, 3, 6, 7))
    assert "4 of 8 CPUs may be used, 2 of them little cores" in plan.reason


def test_an_affinity_of_little_cores_uses_them(tmp_path):
    write_cpus(tmp_path, 8, capacity=PHONE)
    plan = thread_plan(tmp_path, affinity={0, 1, 2})
    assert plan.threads == 3
    assert "all of them little cores" in plan.reason
    assert "all big cores" in thread_plan(tmp_path, affinity={6, 7}).reason


def test_clock_rates_decide_where_capacities_are_missing_or_equal(tmp_path):
    khz = {0: 3_300_000, 1: 3_300_000, 2: 5_100_000, 3: 5_000_000}
    write_cpus(tmp_path, 4, max_khz=khz)
    assert thread_plan(tmp_path, affinity=range(4)).big_cpus == (2, 3)
    write_cpus(tmp_path, 4, capacity=dict.fromkeys(range(4), 1024), max_khz=khz)
    plan = thread_plan(tmp_path, affinity=range(4))
    assert (plan.threads, plan.core_source) == (2, "cpufreq/cpuinfo_max_freq")


def test_favoured_cores_of_one_kind_are_not_a_kind_of_their_own(tmp_path):
    write_cpus(tmp_path, 4, max_khz={0: 4_700_000, 1: 4_700_000, 2: 5_200_000, 3: 5_000_000})
    plan = thread_plan(tmp_path, affinity=range(4))
    assert (plan.threads, plan.little_cpus) == (4, ())


def test_strengths_of_some_cores_only_decide_nothing(tmp_path):
    write_cpus(tmp_path, 4, max_khz={0: 1_000_000, 3: 3_000_000})
    plan = thread_plan(tmp_path, affinity=range(4))
    assert (plan.threads, plan.big_cpus, plan.core_source) == (4, (0, 1, 2, 3), None)


def test_an_intel_hybrid_uses_one_thread_per_performance_core(tmp_path):
    siblings = {cpu: f"{cpu - cpu % 2}-{cpu - cpu % 2 + 1}" for cpu in range(8)}
    siblings |= {cpu: str(cpu) for cpu in range(8, 16)}
    write_cpus(tmp_path, 16, siblings=siblings, max_khz=dict.fromkeys(range(16), 5_000_000))
    write_file(tmp_path, "sys/devices/cpu_core/cpus", "0-7")
    write_file(tmp_path, "sys/devices/cpu_atom/cpus", "8-15")
    plan = thread_plan(tmp_path, affinity=range(16))
    assert (plan.threads, plan.little_cpus) == (4, tuple(range(8, 16)))
    assert plan.smt_siblings == ((0, 1), (2, 3), (4, 5), (6, 7))
    assert "8 CPUs share 4 physical cores, one thread each" in plan.reason


def test_a_server_uses_one_thread_per_physical_core(tmp_path):
    write_cpus(tmp_path, 8, siblings={cpu: f"{cpu % 4},{cpu % 4 + 4}" for cpu in range(8)})
    assert thread_plan(tmp_path, affinity=range(8)).threads == 4
    one_of_each = thread_plan(tmp_path, affinity=range(4))
    assert (one_of_each.threads, one_of_each.smt_siblings) == (4, ())
    assert thread_plan(tmp_path, affinity={1, 5}).threads == 1


def test_unknown_siblings_are_unknown(tmp_path):
    plan = thread_plan(tmp_path, affinity=range(3))
    assert (plan.threads, plan.smt_siblings, plan.core_source) == (3, None, None)


def test_a_container_with_two_cpus_of_many(tmp_path):
    write_cpus(tmp_path, 64)
    plan = thread_plan(tmp_path, affinity={17, 40})
    assert (plan.threads, plan.total_cpus, plan.allowed_cpus) == (2, 64, (17, 40))
    assert plan.reason == "2 of 64 CPUs may be used"


def test_the_reason_names_the_quota_only_when_it_binds(tmp_path):
    write_file(tmp_path, "sys/fs/cgroup/cpu.max", "150000 100000")
    tight = thread_plan(tmp_path, affinity=range(4))
    assert (tight.threads, tight.quota) == (1, 1.5)
    assert "the cgroup quota of 1.5 CPUs is the limit" in tight.reason
    assert "quota" not in thread_plan(tmp_path, affinity={0}).reason


def test_more_cpus_than_the_engine_has_threads(tmp_path):
    assert thread_plan(tmp_path, affinity=range(3000)).threads == MAX_THREADS


def test_oversubscription_is_named(tmp_path):
    plan = thread_plan(tmp_path, affinity=range(4))
    assert oversubscription(4, plan) is None
    assert oversubscription(5, plan) == (
        "threads is 5, but this process may run on 4 CPUs: threads will wait for each other; "
        "4 would be used by default"
    )
    limited = replace(plan, quota=1.5, threads=1)
    assert "its cgroup quota is 1.5 CPUs" in (oversubscription(2, limited) or "")
    assert oversubscription(1, replace(plan, quota=0.5, threads=1)) is None


@pytest.mark.parametrize(
    ("script", "cores"), [("echo 4", 4), ("echo 0", 1), ("echo four", None), ("exit 1", None)]
)
def test_a_mac_is_asked_for_its_performance_cores(tmp_path, script, cores):
    program = tmp_path / "sysctl"
    program.write_text(f'#!/bin/sh\n[ "$*" = "-n hw.perflevel0.physicalcpu" ] && {script}\n')
    program.chmod(0o755)
    assert apple_performance_cores(str(program)) == cores
    assert apple_performance_cores(str(tmp_path / "none")) is None


def test_this_machine():
    plan = thread_plan()
    assert 1 <= plan.threads == default_threads() <= len(plan.allowed_cpus) <= plan.total_cpus
    if sys.platform == "linux":
        assert set(plan.allowed_cpus) == os.sched_getaffinity(0)
