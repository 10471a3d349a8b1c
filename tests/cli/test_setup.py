"""The set-up refuses a machine that cannot build, in one message and before anything else."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CHECK = ROOT / "tools" / "check_setup.sh"

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make and sh")


def call(*command: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `command` at the root, without what an outer make leaves in the environment."""
    hidden = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "CXX", "PYTHON", "VENV")
    environment = {key: value for key, value in os.environ.items() if key not in hidden}
    return subprocess.run(
        list(map(str, command)),
        cwd=ROOT,
        env=environment | variables,
        capture_output=True,
        text=True,
        check=False,
    )


def fake_tool(folder: Path, name: str, script: str) -> Path:
    """Write an executable shell script and return its path."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def empty_path(folder: Path) -> str:
    """Return a PATH that holds the everyday tools but neither a compiler nor a Python."""
    tools = folder / "tools"
    tools.mkdir()
    for name in ("sh", "mktemp", "rm", "mkdir", "cat", "date", "find", "touch"):
        found = shutil.which(name)
        assert found, name
        (tools / name).symlink_to(found)
    return str(tools)


def test_this_machine_can_build() -> None:
    python = call("sh", CHECK, "python", PYTHON=sys.executable)
    assert (python.returncode, python.stdout.strip()) == (0, sys.executable)
    compiler = call("sh", CHECK, "compiler")
    assert compiler.returncode == 0
    assert Path(compiler.stdout.strip()).is_file()


@pytest.mark.parametrize(
    ("request_", "needs"), [("compiler", "a C++20 compiler"), ("python", "Python 3.11 or newer")]
)
def test_a_bare_path_is_refused(tmp_path: Path, request_: str, needs: str) -> None:
    shell = shutil.which("sh")
    assert shell
    done = call(shell, CHECK, request_, PATH=empty_path(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    error, hint = done.stderr.splitlines()
    assert error.startswith(f"error: mobilemoe needs {needs}")
    assert hint.startswith("hint: install ")


def test_an_old_compiler_is_named(tmp_path: Path) -> None:
    old = fake_tool(tmp_path, "old-c++", "exit 1")
    done = call("sh", CHECK, "compiler", CXX=str(old))
    assert done.returncode == 1
    assert f"{old} does not compile C++20" in done.stderr


def test_an_old_python_is_named(tmp_path: Path) -> None:
    old = fake_tool(tmp_path, "old-python", "echo it is 3.9")
    done = call("sh", CHECK, "python", PYTHON=str(old))
    assert done.returncode == 1
    assert f"{old}: it is 3.9" in done.stderr


@pytest.mark.parametrize("target", ["demo", "test", "env"])
def test_make_says_it_first_and_makes_nothing(tmp_path: Path, target: str) -> None:
    environment = tmp_path / "venv"
    done = call("make", target, f"VENV={environment}", "CXX=/nonexistent/c++")
    assert done.returncode != 0
    assert done.stdout == ""
    assert done.stderr.startswith("error: mobilemoe needs a C++20 compiler")
    assert not environment.exists()


def test_the_demo_counts_from_the_start_of_make(tmp_path: Path) -> None:
    before = int(time.time())
    done = call("make", "-n", "demo", f"VENV={tmp_path}/venv", "MINUTES=3", "SEED=7")
    found = re.search(r"mobilemoe demo --minutes 3 --seed 7 --started-at (\d+)$", done.stdout, re.M)
    assert found, done.stdout + done.stderr
    assert before <= int(found.group(1)) <= int(time.time())


def test_torch_is_installed_before_what_depends_on_it(tmp_path: Path) -> None:
    plan = call("make", "-n", "test", f"VENV={tmp_path}/venv").stdout
    steps = ["-m venv", 'install "torch==', "wheel --no-deps", "[train,plots,dev]", "ruff check"]
    steps += ["ruff format --check", "mypy --strict", "-m pytest"]
    places = [plan.index(step) for step in steps]
    assert places == sorted(places)


def test_help_is_the_default_and_names_every_target() -> None:
    done = call("make", "--no-print-directory")
    assert done.returncode == 0
    for target in ("demo", "test", "lint", "format", "env", "clean"):
        assert re.search(rf"\b{target}\b", done.stdout)


def test_continuous_integration_runs_make_test() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "set -euo pipefail" in script.read_text(encoding="utf-8")
    assert script.read_text(encoding="utf-8").rstrip().endswith("make test")
