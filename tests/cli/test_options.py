"""Options shared by several verbs: stated once, spelled out for each."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from mobilemoe.cli.options import unfolded

from .conftest import Run


@dataclass(frozen=True)
class Colours:
    """Two options of which one is required."""

    sky: Annotated[str, typer.Option(help="What is above.")]
    sea: Annotated[int, typer.Option(min=0, help="What is below.")] = 3


@unfolded
def paint(
    path: Annotated[str, typer.Argument()],
    size: Annotated[int, typer.Option()] = 1,
    *,
    colours: Colours,
    quiet: Annotated[bool, typer.Option("--quiet")] = False,
) -> None:
    """Paint a picture."""
    print(path, size, colours, quiet)


def run_paint(*arguments: str) -> tuple[int, str]:
    app = typer.Typer(rich_markup_mode=None)
    app.command()(paint)
    done = CliRunner().invoke(app, list(arguments))
    return done.exit_code, done.output


def test_fields_become_options_and_come_back_as_one_value() -> None:
    assert list(inspect.signature(paint).parameters) == ["path", "size", "sky", "sea", "quiet"]
    status, output = run_paint("p", "--sky", "blue", "--sea", "4", "--quiet")
    assert (status, output) == (0, "p 1 Colours(sky='blue', sea=4) True\n")
    assert run_paint("p", "--sky", "red")[1] == "p 1 Colours(sky='red', sea=3) False\n"


@pytest.mark.parametrize("arguments", [("p",), ("p", "--sky", "x", "--sea", "-1")])
def test_required_fields_and_ranges_hold(arguments: tuple[str, ...]) -> None:
    assert run_paint(*arguments)[0] == 2


def test_help_shows_them_with_their_defaults() -> None:
    output = run_paint("--help")[1]
    assert "Paint a picture." in output
    assert re.search(r"--sea .*What is below\.\s+\[default: 3", output)


def test_generate_and_chat_share_their_options(run: Run) -> None:
    shared = {"temperature", "top-p", "top-k", "min-p", "repetition-penalty", "seed", "stop"}
    shared |= {"threads", "context", "activations", "kv", "max-new-tokens"}
    for verb in ("generate", "chat"):
        options = set(re.findall(r"^ +--([a-z-]+)", run(verb, "--help").stdout, re.MULTILINE))
        assert shared <= options, verb
