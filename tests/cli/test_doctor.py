"""`mobilemoe doctor`: readable at 80 and 120 columns, one JSON document, and honest statuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mobilemoe.cli.doctor import TITLES
from mobilemoe.engine import default_threads
from mobilemoe.engine.native import instruction_set

from .conftest import Run

TAGS = {"measured", "derived", "policy", "unknown"}
WITHOUT = """
import os, sys
sys.addaudithook(lambda event, _: os._exit(97) if event.startswith("socket.") else None)
for name in sys.argv[1].split():
    sys.modules[name] = None
from mobilemoe.cli import app
app(sys.argv[2:], prog_name="mobilemoe")
"""


def doctor_without(modules: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `doctor` where the named modules cannot be imported; a socket ends it with 97."""
    command = [sys.executable, "-c", WITHOUT, modules, "doctor", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def read(text: str) -> dict[str, Any]:
    """Read one JSON document, which has no NaN and no infinity."""
    document: dict[str, Any] = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    return document


def test_json_has_stable_keys(run: Run) -> None:
    done = run("doctor", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    document = read(done.stdout)
    assert set(document) == {"ok", "topics", "self_test", "fits", "problems"}
    assert document["ok"] is True
    assert list(document["topics"]) == list(TITLES)
    for lines in document["topics"].values():
        for line in lines.values():
            assert set(line) == {"value", "tag", "note", "unit"}
            assert line["tag"] in TAGS
    assert document["topics"]["threads"]["threads"]["value"] == default_threads()
    assert document["topics"]["processor"]["kernel"]["value"] == instruction_set()
    assert all(check["passed"] for check in document["self_test"])
    keys = {"preset", "context", "file_bytes", "private_bytes", "verdict"}
    assert all(set(fit) == keys for fit in document["fits"])


@pytest.mark.parametrize("columns", [80, 120])
def test_text_fits_the_terminal_and_shows_every_tag(run: Run, columns: int) -> None:
    done = run("doctor", COLUMNS=str(columns))
    assert (done.returncode, done.stderr) == (0, "")
    assert max(map(len, done.stdout.splitlines())) <= columns
    assert "…" not in done.stdout  # nothing is cut off
    for title in TITLES.values():
        assert f"{title}\n" in done.stdout
    for tag in ("measured", "derived", "policy"):
        assert f" {tag} " in done.stdout
    assert f"{instruction_set()} (the engine's choice" in done.stdout
    assert "\nproblems:" in done.stdout


def test_a_missing_native_module_is_a_problem_and_the_rest_is_still_told() -> None:
    done = doctor_without("mobilemoe.engine._native", "--json")
    assert done.returncode == 1
    assert done.stderr == ""
    document = read(done.stdout)
    assert document["ok"] is False
    assert document["self_test"] == []
    (problem,) = document["problems"]
    assert problem["severity"] == "error"
    assert "native engine cannot be loaded" in problem["what"]
    assert "C++20" in problem["hint"]
    assert document["topics"]["processor"]["kernel"]["tag"] == "unknown"
    assert document["topics"]["threads"]["threads"]["value"] == default_threads()


def test_the_text_ends_with_the_problems() -> None:
    done = doctor_without("mobilemoe.engine._native")
    assert done.returncode == 1
    problems = done.stdout.split("\nproblems:\n")[1]
    assert problems.startswith("error: the native engine cannot be loaded")
    assert "hint: reinstall mobilemoe" in problems


def test_torch_is_not_needed() -> None:
    done = doctor_without("torch", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert read(done.stdout)["ok"] is True


def test_a_token_is_found_and_not_shown(run: Run, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("hf_secret_value")
    done = run("doctor", "--json", HF_HOME=str(tmp_path), HF_TOKEN="hf_another_secret")
    token = read(done.stdout)["topics"]["hub"]["token"]
    assert (token["value"], token["note"]) == ("present", "from HF_TOKEN")
    assert "secret" not in done.stdout
    done = run("doctor", HF_HOME=str(tmp_path), HF_TOKEN="")
    assert "present" in done.stdout
    assert "secret" not in done.stdout


def test_a_token_that_no_verb_sends_is_a_warning(run: Run, tmp_path: Path) -> None:
    done = run("doctor", "--json", HF_HOME=str(tmp_path), HF_TOKEN="hf_secret with a space")
    assert (done.returncode, done.stderr) == (0, "")
    document = read(done.stdout)
    assert document["topics"]["hub"]["token"]["value"] == "malformed"
    (problem,) = (p for p in document["problems"] if "token" in p["what"])
    assert problem["severity"] == "warning"
    assert problem["what"].startswith("the token from HF_TOKEN holds a space")
    assert "secret" not in done.stdout


@pytest.mark.parametrize("home", ["~nobody-of-that-name/x", "circle"])
def test_a_home_of_the_hub_that_is_none_is_a_warning(run: Run, tmp_path: Path, home: str) -> None:
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    home = home if home.startswith("~") else str(tmp_path / home)
    done = run("doctor", "--json", HF_HOME=home, HF_TOKEN="hf_x")
    assert (done.returncode, done.stderr) == (0, "")
    document = read(done.stdout)
    assert document["topics"]["disk"]["hub_cache"]["tag"] == "unknown"
    (problem,) = (p for p in document["problems"] if "HF_HOME" in p["what"])
    assert problem["severity"] == "warning"
    assert home in problem["what"]
    assert run("doctor", HF_HOME=home).returncode == 0


@pytest.mark.parametrize("home", ["~nobody-of-that-name/x", "circle"])
def test_a_home_of_the_hub_that_is_none_is_one_error_of_a_fetch(
    run: Run, tmp_path: Path, home: str
) -> None:
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    home = home if home.startswith("~") else str(tmp_path / home)
    done = run("info", "a/b", HF_HOME=home, HF_HUB_OFFLINE="1")
    assert (done.returncode, done.stdout) == (1, "")
    error, hint = done.stderr.splitlines()
    assert error.startswith(f"error: HF_HOME places the hub's cache at {home}")
    assert hint.startswith("hint: set HF_HOME")


@pytest.mark.skipif(sys.platform != "linux", reason="needs an enforced address space limit")
def test_a_tight_memory_limit_is_named() -> None:
    limited = ["sh", "-c", 'ulimit -v 900000; exec "$@"', "sh"]
    command = [*limited, sys.executable, "-c", WITHOUT, "torch", "doctor"]
    # numpy's threads would reserve address space of their own on a machine with many cores.
    few = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=few, check=False)
    assert done.returncode == 0, done.stderr
    assert "warning: S at 1024 tokens needs" in done.stdout
    assert "address space limit (ulimit -v)" in done.stdout
