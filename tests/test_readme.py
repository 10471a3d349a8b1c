"""The README is true: its commands run, its table is the measured one, its links exist."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from command_line import hub_of, mobilemoe

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


STAGES = ("pretrain", "midtrain", "sft", "qat")
SHORT = [
    word
    for stage in STAGES
    for word in ("--set", f"{stage}.tokens=8192", "--set", f"{stage}.warmup_steps=1")
]


def blocks(language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """Every shell line of the README, without comments."""
    lines = [line.split(" #")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


@pytest.fixture(scope="module")
def hub(demo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A stand-in hub that has the demo's model under the name of the released one."""
    home = tmp_path_factory.mktemp("hub")
    with hub_of("facebook/MobileMoE-S-QAT", demo_folder / "runs/demo/model", home) as environment:
        yield environment


@pytest.fixture(scope="module")
def clone(demo_folder: Path) -> Path:
    """The folder of the demo's run, with what a clone has beside it."""
    for name in ("recipes", "benchmarks"):
        if not (demo_folder / name).exists():
            (demo_folder / name).symlink_to(ROOT / name)
    return demo_folder


def test_the_readme_begins_with_the_two_commands() -> None:
    assert commands()[:2] == ["make demo", "make test"]


@pytest.mark.parametrize("command", [c for c in commands() if c.startswith("make ")])
def test_make_targets_exist(command: str) -> None:
    target = shlex.split(command)[1]
    assert re.search(rf"^{re.escape(target)}:", MAKEFILE, re.MULTILINE)
    for variable in re.findall(r"(\w+)=", command):
        assert re.search(rf"^{variable} \?=", MAKEFILE, re.MULTILINE), variable


@pytest.mark.parametrize("command", [c for c in commands() if not c.startswith("make ")])
def test_commands_run(command: str, clone: Path, hub: dict[str, str]) -> None:
    program, *arguments = shlex.split(command)
    assert program == "mobilemoe"
    if arguments[0] == "demo":
        pytest.skip("the fixture has run it; with its own minutes it takes as long as it says")
    if arguments[:2] == ["train", "nano"]:
        arguments += SHORT  # the same four stages, in seconds
    *arguments, target = arguments if ">" in arguments else (*arguments, None)
    question = "What does os.path.join do?\n/quit\n"
    words = [word for word in arguments if word != ">"]
    done = mobilemoe(*words, cwd=clone, input=question, env=os.environ | hub)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip("\n")  # the hardly trained model may well say spaces
    if target is not None:
        (clone / target).write_text(done.stdout)


@pytest.mark.parametrize("block", blocks("python"))
def test_python_examples_run(block: str, demo_folder: Path, hub: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", block],
        cwd=demo_folder,
        text=True,
        capture_output=True,
        timeout=300,
        env=os.environ | hub,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip("\n")  # the hardly trained model may well say spaces


def test_the_measured_table_is_the_measured_one() -> None:
    from readme_table import opening_table, readme_table  # benchmarks/ is no package

    results = ROOT / "benchmarks/results"
    assert readme_table(json.loads((results / "demo.json").read_text())) in README
    assert opening_table(json.loads((results / "opening.json").read_text())) in README


def test_links_and_pictures_exist() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    assert targets
    local = [target for target in targets if not target.startswith("https://")]
    assert [target for target in local if not (ROOT / target).exists()] == []
