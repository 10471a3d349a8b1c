"""What holds for every verb: status, streams, help, and nothing heavy loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import mobilemoe

from .conftest import Run

VERBS = (
    "demo",
    "info",
    "plan",
    "train",
    "init",
    "convert",
    "verify",
    "generate",
    "chat",
    "tokenize",
    "bench",
    "doctor",
)


def test_version(run: Run) -> None:
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"mobilemoe {mobilemoe.__version__}\n")


def test_help_lists_the_verbs(run: Run) -> None:
    done = run("--help")
    assert done.returncode == 0
    for verb in VERBS:
        assert f"\n  {verb} " in done.stdout


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_a_worked_example(run: Run, verb: str) -> None:
    done = run(verb, "--help")
    assert done.returncode == 0
    assert f"mobilemoe {verb} " in done.stdout.split("Examples:")[1]


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("nonsense",),
        ("info",),
        ("info", "nano", "--nonsense"),
        ("plan", "--memory", "much"),
        ("plan", "--memory", "0MB"),
        ("plan", "--kv", "int2"),
        ("plan", "--vocab", "12"),
        ("generate", "folder", "--logprobs", "2"),
        ("generate", "folder", "--prompt", "x", "--max-new-tokens", "0"),
        ("generate", "folder", "--prompt", "x", "--activations", "int4"),
        ("generate", "folder", "--prompt", "x", "--kv", "bf16"),
        ("chat", "folder", "--temperature", "-1"),
        ("init", "--preset", "Q", "out"),
        ("verify", "folder", "--tokens", "513"),
        ("bench", "folder", "-d", "0,-1"),
        ("bench", "folder", "-t", "0"),
        ("bench", "folder", "-o", "sql"),
        ("bench", "folder", "--output", "json"),
        ("bench", "folder", "--plot", "roof.gif"),
    ],
)
def test_wrong_usage_is_status_2_with_clean_stdout(run: Run, arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert "Usage:" in done.stderr or "Usage:" in done.stdout
    assert "Traceback" not in done.stderr
    if arguments:
        assert done.stdout == ""


def test_an_unknown_preset_is_told_the_names(run: Run, tmp_path: Path) -> None:
    done = run("init", "--preset", "Q", tmp_path / "out")
    assert done.returncode == 2
    words = " ".join(done.stderr.split())
    assert "no preset called 'Q'; allowed: " in words
    assert "nano" in words
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("info", "no-such-model"), "neither a checkpoint folder nor a preset"),
        (("plan", "--memory", "1kB"), "memory_bytes 1000 is the binding constraint"),
        (("plan", "--flops", "1k", "--json"), "flops_per_token 1000 is the binding constraint"),
        (("generate", "no-such-folder", "--prompt", "x"), "no checkpoint folder"),
        (("chat", "no-such-folder"), "no checkpoint folder"),
    ],
)
def test_failure_is_status_1_with_error_and_hint(
    run: Run, arguments: tuple[str, ...], message: str
) -> None:
    done = run(*arguments)
    assert done.returncode == 1
    assert done.stdout == ""
    error, hint = done.stderr.splitlines()
    assert error.startswith("error: ")
    assert message in error
    assert hint.startswith("hint: ")


@pytest.mark.parametrize("verb", ["info", "tokenize", "verify"])
def test_the_address_of_a_page_is_told_the_hub_id(run: Run, verb: str) -> None:
    done = run(verb, "https://huggingface.co/owner/name", stdin="x")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith("\nhint: write owner/name\n")


def test_the_traceback_is_there_for_those_who_ask(run: Run) -> None:
    done = run("info", "no-such-model", MOBILEMOE_TRACEBACK="1")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "MobileMoEError" in done.stderr


def test_a_folder_without_config_is_an_error(run: Run, tmp_path: Path) -> None:
    done = run("info", tmp_path)
    assert done.returncode == 1
    assert "config.json" in done.stderr


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys, mobilemoe.cli\n"
        "try: mobilemoe.cli.app(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'matplotlib', 'tokenizers', 'huggingface_hub', 'jinja2'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage:" in done.stdout
    assert done.stderr == "[]\n"
