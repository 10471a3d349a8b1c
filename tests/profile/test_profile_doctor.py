"""The check of a machine: where each line comes from, problems, and secrets that stay secret."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from fake_system import write_cpus, write_file
from mobilemoe.checkpoint.hub import TokenStatus
from mobilemoe.engine._native import testing
from mobilemoe.engine.native import instruction_set
from mobilemoe.profile.doctor import Engine, engine_problems, examine
from mobilemoe.profile.findings import measured
from mobilemoe.profile.software_lines import cached_models, disk_lines, free_bytes, hub_lines

FUNCTIONS = ("linear", "expert", "linear_bf16", "expert_bf16", "quantize", "attend", "route")


def find(report, topic, name):
    (line,) = (line for line in report.lines if (line.topic, line.name) == (topic, name))
    return line


def board(root, available_kb=2_000_000):
    """Write an ARM board with two kinds of cores."""
    features = "Features\t: fp asimd asimddp i8mm crc32\nCPU part\t: 0xd41"
    write_file(root, "proc/cpuinfo", f"processor\t: 0\n{features}")
    write_file(root, "proc/meminfo", f"MemTotal: 4000000 kB\nMemAvailable: {available_kb} kB")
    write_file(root, "proc/self/cgroup", "0::/")
    write_file(root, "proc/self/limits", "Max address space   unlimited   unlimited   bytes")
    write_file(root, "sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never")
    write_cpus(root, 4, capacity={0: 400, 1: 400, 2: 1024, 3: 1024})
    return root


def test_a_board_is_described_from_its_files(tmp_path, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {1, 2, 3}, raising=False)
    report = examine(board(tmp_path))
    instructions = find(report, "processor", "instruction_sets")
    assert (instructions.value, instructions.tag) == ("asimd asimddp i8mm", "measured")
    assert find(report, "threads", "allowed_cpus").value == "1-3"
    assert find(report, "threads", "core_types").value == "big 2-3, little 0-1"
    threads = find(report, "threads", "threads")
    assert (threads.value, threads.tag) == (2, "policy")
    assert "1 of them little cores" in threads.note
    assert find(report, "threads", "shared_cores").tag == "unknown"
    assert find(report, "memory", "total").value == 4_096_000_000
    assert find(report, "memory", "cgroup_limit").value == "none"
    room = find(report, "memory", "room")
    assert (room.value, room.tag) == (2_048_000_000, "derived")
    assert find(report, "memory", "huge_pages").value == "madvise"
    assert find(report, "fits", "S").value == "fits: 1024, 4096, 8192"
    assert find(report, "fits", "L").value == "partly paged: 1024, 4096, 8192"
    assert report.ok


def test_a_system_without_files_is_unknown_and_nothing_is_guessed(tmp_path):
    report = examine(tmp_path)
    for topic, name in (
        ("processor", "instruction_sets"),
        ("threads", "cpu_quota"),
        ("threads", "core_types"),
        ("threads", "shared_cores"),
        ("memory", "total"),
        ("memory", "available"),
        ("memory", "cgroup_limit"),
        ("memory", "address_space_limit"),
        ("memory", "room"),
        ("memory", "huge_pages"),
        ("fits", "S"),
    ):
        line = find(report, topic, name)
        assert (line.tag, line.value) == ("unknown", None), (topic, name)


def test_every_line_has_a_key_of_its_own_and_a_value_unless_unknown():
    report = examine()
    keys = [(line.topic, line.name) for line in report.lines]
    assert len(set(keys)) == len(keys)
    assert all((line.value is None) == (line.tag == "unknown") for line in report.lines)
    assert find(report, "processor", "kernel").value == instruction_set()
    assert find(report, "self_test", instruction_set()).value == "passed"
    assert find(report, "software", "compiler").value
    assert report.ok


def test_a_broken_kernel_is_an_error(tmp_path):
    def broken(qweight, scale, x, int8, kernel):
        y = testing.linear(qweight, scale, x, int8, kernel)
        return -y if kernel == "portable" else y

    good = {name: getattr(testing, name) for name in FUNCTIONS}
    report = examine(board(tmp_path), functions=SimpleNamespace(**good | {"linear": broken}))
    assert not report.ok
    line = find(report, "self_test", "portable")
    assert (line.value, line.tag) == ("failed", "measured")
    errors = [problem for problem in report.problems if problem.severity == "error"]
    assert {error.what.split(":")[0] for error in errors} == {"kernel portable computes wrongly"}
    assert any("linear int8 at [" in error.what for error in errors)
    assert all(
        "reinstall" in error.hint and "kernel='portable'" not in error.hint for error in errors
    )


def test_the_portable_kernel_is_the_way_out_of_a_broken_fast_one():
    from mobilemoe.engine.selftest import Check

    checks = (Check("avx2", "attend", 3.0, "at [0]: 1 expected, 2 found"),)
    engine = Engine("avx2", ("portable", "avx2"), checks, None, None)
    (problem,) = engine_problems(engine)
    assert problem.severity == "error"
    assert "kernel='portable'" in problem.hint


def test_slow_kernels_are_a_warning():
    (problem,) = engine_problems(Engine("portable", ("portable",), (), None, None))
    assert (problem.severity, "portable" in problem.what) == ("warning", True)
    assert list(engine_problems(Engine("avx2", ("avx2",), (), None, None))) == []


@pytest.mark.parametrize(
    ("available_kb", "paged"), [(10_000, False), (500_000, True), (800_000, None)]
)
def test_too_little_memory_for_s_is_a_warning(tmp_path, available_kb, paged):
    report = examine(board(tmp_path, available_kb))
    problems = [problem for problem in report.problems if problem.what.startswith("S at 1024")]
    assert len(problems) == (paged is not None)
    assert report.ok
    if problems:
        assert ("from disk again" in problems[0].what) == paged
        assert "free memory of the machine" in problems[0].what
        assert problems[0].hint


@pytest.mark.parametrize(
    ("status", "value", "note"),
    [
        (TokenStatus("environment", "HF_TOKEN", True), "present", "from HF_TOKEN"),
        (TokenStatus("file", "/h/token", True), "present", "from /h/token"),
        (TokenStatus("file", "/h/token", False), "present", "keeps it from being sent"),
        (
            TokenStatus("unreadable file", "/h/token", False),
            "unreadable",
            "permissions of /h/token",
        ),
        (TokenStatus("none", "", False), "none", "gated and need one"),
        (TokenStatus("file", "/h/token", True, malformed=True), "malformed", "from /h/token"),
    ],
)
def test_the_token_is_named_by_its_place(tmp_path, status, value, note):
    line = next(line for line in hub_lines(status, tmp_path) if line.name == "token")
    assert line.value == value
    assert note in line.note


def test_cached_models_are_listed(tmp_path):
    assert cached_models(tmp_path / "none") == ()
    for name in ("facebook--MobileMoE-S-QAT", "facebook--MobileMoE-L-SFT", "facebook--other"):
        (tmp_path / f"models--{name}").mkdir()
    found = ("facebook/MobileMoE-L-SFT", "facebook/MobileMoE-S-QAT")
    assert cached_models(tmp_path) == found


def test_free_space_of_a_folder_not_made_yet_is_that_of_its_parent(tmp_path):
    free = free_bytes(tmp_path / "not" / "there")
    assert free is not None and free > 0
    lines = {line.name: line for line in disk_lines(tmp_path / "not", tmp_path)}
    assert lines["hub_cache"].note == "not made yet"
    assert "714 MB (INT4)" in str(lines["download_S"].value)


def test_a_cache_without_a_place_is_unknown(tmp_path):
    status = TokenStatus("none", "", False)
    lines = {line.name: line for line in (*disk_lines(None, tmp_path), *hub_lines(status, None))}
    for name in ("hub_cache", "hub_cache_free", "cached_models"):
        assert (lines[name].tag, lines[name].value) == ("unknown", None), name
    assert lines["current_folder_free"].tag == "measured"


def test_measured_without_a_value_is_unknown():
    assert measured("t", "n", None).tag == measured("t", "n", "").tag == "unknown"
    assert measured("t", "n", 0).tag == "measured"
