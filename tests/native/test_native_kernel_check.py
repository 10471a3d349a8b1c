"""Every kernel table against the portable one, outside of Python: sanitizers, 64-bit ARM."""

from __future__ import annotations

from collections.abc import Callable

import check_native
import pytest
from check_native import Run


def runs_of(check: Callable[[], list[Run]]) -> list[Run]:
    try:
        return check()
    except check_native.MissingToolError as missing:
        pytest.skip(str(missing))


def expect_good(runs: list[Run]) -> None:
    bad = [f"{' '.join(run.command)}\n{run.output}" for run in runs if not run.good]
    assert not bad, "\n\n".join(bad)


def test_kernels_pass_the_sanitizers() -> None:
    runs = runs_of(lambda: check_native.check_sanitizers("--few"))
    assert "linear_int8" in runs[0].output and "threads" in runs[-1].output
    teams = [run.output for run in runs if "--team" in run.command]
    assert len(teams) == 2 and all("feed_forward" in output for output in teams)
    expect_good(runs)


def test_arm_kernels_pass_in_an_emulator() -> None:
    runs = runs_of(check_native.check_arm)
    checked = " ".join(run.output for run in runs)
    assert "neon-i8mm     expert_int8" in checked and "neon-dotprod  attend_int8" in checked
    assert "neon-i8mm     feed_forward" in checked
    expect_good(runs)


def test_missing_arm_tools_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(check_native.MissingToolError) as raised:
        check_native.arm_tools()
    assert "apt-get install g++-aarch64-linux-gnu qemu-user" in str(raised.value)
