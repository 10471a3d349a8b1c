"""The model that the package carries answers without a path and without the network."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import mobilemoe
from mobilemoe.checkpoint import open_checkpoint
from mobilemoe.checkpoint.shipped import shipped_folder
from mobilemoe.recipe import load_recipe

Run = Callable[..., subprocess.CompletedProcess[str]]
LARGEST = 12_000_000


def test_it_is_the_recipes_model_and_small() -> None:
    checkpoint = open_checkpoint("shipped")
    assert checkpoint.folder == shipped_folder()
    assert checkpoint.config == load_recipe("shipped").model
    assert checkpoint.weight_format == "int4"
    assert checkpoint.tensors().file_bytes <= LARGEST


def test_generate_without_arguments_answers(run: Run, tmp_path: Path) -> None:
    done = run("generate", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) > 5


def test_chat_without_arguments_answers(run: Run, tmp_path: Path) -> None:
    done = run("chat", stdin="What is 2 + 3?\n", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "2 + 3" in done.stdout


def test_python_opens_it_without_a_path() -> None:
    model = mobilemoe.load()
    assert [token.text for token in model.generate("import ", max_new_tokens=3)]


@pytest.mark.parametrize("verb", ["info", "tokenize"])
def test_other_verbs_know_it_by_name(run: Run, verb: str, tmp_path: Path) -> None:
    more = ["def f(x):"] if verb == "tokenize" else []
    done = run(verb, "shipped", *more, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)


def test_a_folder_of_that_name_comes_first(run: Run, tmp_path: Path) -> None:
    (tmp_path / "shipped").mkdir()
    done = run("generate", "shipped", cwd=tmp_path)
    assert done.returncode == 1
    assert "config.json" in done.stderr
