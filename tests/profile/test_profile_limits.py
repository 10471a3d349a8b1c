"""Memory limits from made-up machines, and what fits under them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_system import write_file
from mobilemoe.config import ModelConfig
from mobilemoe.engine.footprint import model_bytes, session_bytes
from mobilemoe.engine.memory_limits import (
    ADDRESS_SPACE,
    GROUP,
    MACHINE,
    Limit,
    MemoryLimits,
    memory_limits,
)
from mobilemoe.profile.limits import verdict, what_fits

MB = 10**6
LIMITS = "Limit                     Soft Limit           Hard Limit           Units"


def machine(root, available_kb=1_500_000, address_space="unlimited"):
    """Write a machine with 2 GB of memory."""
    write_file(root, "proc/meminfo", f"MemTotal: 2000000 kB\nMemAvailable: {available_kb} kB")
    write_file(root, "proc/self/status", "VmPeak:  900000 kB\nVmSize:  100000 kB")
    row = f"Max address space         {address_space:<20} unlimited            bytes"
    write_file(root, "proc/self/limits", f"{LIMITS}\n{row}")
    return root


def rooms(limits):
    return [(limit.name, limit.room) for limit in limits.limits]


def test_without_limits_the_free_memory_binds(tmp_path):
    limits = memory_limits(machine(tmp_path))
    assert (limits.total, limits.available) == (2_048_000_000, 1_536_000_000)
    assert rooms(limits) == [(MACHINE, 1_536_000_000)]
    assert limits.binding == limits.limits[0]


def test_version_2_groups_with_the_cache_that_can_be_dropped(tmp_path):
    machine(tmp_path)
    write_file(tmp_path, "proc/self/cgroup", "0::/pod/app")
    write_file(tmp_path, "sys/fs/cgroup/pod/memory.max", "1000000000")
    write_file(tmp_path, "sys/fs/cgroup/pod/memory.current", "400000000")
    write_file(tmp_path, "sys/fs/cgroup/pod/memory.stat", "anon 1\ninactive_file 150000000")
    write_file(tmp_path, "sys/fs/cgroup/pod/app/memory.max", "max")
    limits = memory_limits(tmp_path)
    assert rooms(limits)[1:] == [(GROUP, 750_000_000)]
    assert limits.binding == Limit(GROUP, 1_000_000_000, 750_000_000, maps_files=True)


def test_the_tightest_of_own_group_and_ancestors_binds(tmp_path):
    machine(tmp_path)
    write_file(tmp_path, "proc/self/cgroup", "0::/pod/app")
    write_file(tmp_path, "sys/fs/cgroup/memory.max", "900000000")
    write_file(tmp_path, "sys/fs/cgroup/pod/memory.max", "500000000")
    write_file(tmp_path, "sys/fs/cgroup/pod/app/memory.max", "700000000")
    binding = memory_limits(tmp_path).binding
    assert binding is not None and binding.room == 500_000_000


def test_version_1_groups(tmp_path):
    machine(tmp_path)
    write_file(tmp_path, "proc/self/cgroup", "4:memory:/box\n1:cpu:/")
    folder = "sys/fs/cgroup/memory"
    write_file(tmp_path, f"{folder}/memory.limit_in_bytes", "9223372036854771712")
    write_file(tmp_path, f"{folder}/memory.usage_in_bytes", "123")
    write_file(tmp_path, f"{folder}/box/memory.limit_in_bytes", "600000000")
    write_file(tmp_path, f"{folder}/box/memory.usage_in_bytes", "200000000")
    write_file(tmp_path, f"{folder}/box/memory.stat", "total_inactive_file 50000000")
    assert rooms(memory_limits(tmp_path))[1:] == [(GROUP, 450_000_000)]


def test_a_group_above_its_limit_leaves_nothing(tmp_path):
    machine(tmp_path)
    write_file(tmp_path, "sys/fs/cgroup/memory.max", "100")
    write_file(tmp_path, "sys/fs/cgroup/memory.current", "500")
    assert rooms(memory_limits(tmp_path))[1:] == [(GROUP, 0)]


def test_the_address_space_counts_what_is_mapped(tmp_path):
    limits = memory_limits(machine(tmp_path, address_space="1000000000"))
    expected = Limit(ADDRESS_SPACE, 1_000_000_000, 1_000_000_000 - 102_400_000, maps_files=False)
    assert limits.binding == expected


def test_a_machine_that_says_nothing_is_unknown(tmp_path):
    limits = memory_limits(tmp_path)
    assert (limits.total, limits.available, limits.binding) == (None, None, None)
    assert {fit.verdict for fit in what_fits(limits, 1)} == {"unknown"}


@pytest.mark.parametrize(
    ("room", "maps_files", "expected"),
    [
        (130, True, "fits"),
        (130, False, "fits"),
        (129, True, "partly paged"),
        (129, False, "does not fit"),
        (30, True, "partly paged"),
        (29, True, "does not fit"),
    ],
)
def test_a_mapped_file_may_be_paged_but_private_memory_must_fit(room, maps_files, expected):
    limits = MemoryLimits(None, None, (Limit("one", 200, room, maps_files),))
    assert verdict(100, 30, limits) == expected


small = st.integers(0, 300)
any_limit = st.builds(Limit, st.just("one"), small, small, st.booleans())


@given(limits=st.lists(any_limit, min_size=1), more=any_limit, file=small, private=small)
def test_another_limit_never_makes_more_fit(limits, more, file, private):
    order = ("does not fit", "partly paged", "fits")
    before = verdict(file, private, MemoryLimits(None, None, tuple(limits)))
    after = verdict(file, private, MemoryLimits(None, None, (*limits, more)))
    alone = verdict(file, private, MemoryLimits(None, None, (more,)))
    assert after == min(before, alone, key=order.index)


def test_what_fits_lists_each_preset_at_the_contexts_it_has(tmp_path):
    fits = what_fits(memory_limits(machine(tmp_path)), threads=2)
    found = {(fit.preset, fit.context): fit for fit in fits}
    contexts = {(name, context) for name in "SML" for context in (1024, 4096, 8192)}
    assert set(found) == contexts | {("nano", 1024)}
    config = ModelConfig.preset("S")
    fit = found["S", 4096]
    assert fit.file_bytes == config.weight_bytes("int4")
    assert fit.private_bytes == model_bytes(config) + session_bytes(config, 4096, 2)
    assert fit.verdict == "fits"
    assert found["L", 1024].verdict == "partly paged"


def test_an_address_space_too_small_for_the_file_is_no_paging(tmp_path):
    limits = memory_limits(machine(tmp_path, address_space=str(1800 * MB)))
    found = {(fit.preset, fit.context): fit.verdict for fit in what_fits(limits, 1)}
    assert found["S", 1024] == "fits"
    assert found["M", 8192] == found["L", 1024] == "does not fit"


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_the_limit_of_a_real_process_is_found():
    code = (
        "import json, resource\n"
        "resource.setrlimit(resource.RLIMIT_AS, (3 * 2**30, 3 * 2**30))\n"
        "from mobilemoe.engine.memory_limits import memory_limits\n"
        "print(json.dumps([[l.name, l.limit, l.room] for l in memory_limits().limits]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = {name: (limit, room) for name, limit, room in json.loads(done.stdout)}
    limit, room = found[ADDRESS_SPACE]
    assert limit == 3 * 2**30
    assert limit - 2 * 2**30 < room < limit - 10 * 2**20
    assert found[MACHINE][1] <= found[MACHINE][0]
