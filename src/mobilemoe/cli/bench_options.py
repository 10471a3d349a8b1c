"""The options of `mobilemoe bench`: llama-bench's spellings, checked before anything is loaded."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeVar

import typer

Text = TypeVar("Text", str, str | None)

PICTURES = (".png", ".svg", ".pdf")


class Output(StrEnum):
    """How the result is printed."""

    md = "md"
    json = "json"
    csv = "csv"


def parse_numbers(text: str, low: int) -> tuple[int, ...]:
    """Return the whole numbers of a comma list, each at least `low`.

    Raises:
        typer.BadParameter: if it is anything else (exit status 2).
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and int(part) >= low for part in parts):
        raise typer.BadParameter(f"{text!r}: write whole numbers of at least {low}, as 512,4096")
    return tuple(map(int, parts))


def _checked(low: int) -> Callable[[Text], Text]:
    """Return a check of a comma list; the text stays text."""

    def check(text: Text) -> Text:
        if text is not None:
            parse_numbers(text, low)
        return text

    return check


def _result_file(path: Path | None) -> Path | None:
    """Refuse a format's name: llama-bench spells -o `--output`, here that is a file."""
    if path is not None and str(path) in list(Output):
        raise typer.BadParameter(f"{path} is a format; write -o {path}, or a file's name")
    return path


def _picture_file(path: Path | None) -> Path | None:
    if path is not None and path.suffix not in PICTURES:
        raise typer.BadParameter(f"{path}: allowed endings are {', '.join(PICTURES)}")
    return path


Prompts = Annotated[
    str,
    typer.Option(
        "-p", "--n-prompt", callback=_checked(0), help="Prompt tokens; comma list, 0: none."
    ),
]
Generated = Annotated[
    str,
    typer.Option(
        "-n", "--n-gen", callback=_checked(0), help="Decoded tokens; comma list, 0: none."
    ),
]
Depths = Annotated[
    str,
    typer.Option("-d", "--n-depth", callback=_checked(0), help="Tokens before those; comma list."),
]
ThreadList = Annotated[
    str | None,
    typer.Option(
        "-t", "--threads", callback=_checked(1), help="Comma list; default: the engine's choice."
    ),
]
Rounds = Annotated[
    int, typer.Option("-r", "--repetitions", min=1, help="Timed rounds of every row.")
]
OutputFormat = Annotated[Output, typer.Option("-o", "--output-format", help="What is printed.")]
Versus = Annotated[
    str | None,
    typer.Option("--vs", metavar="llama.cpp|PATH", help="Measure this too, rounds in turns."),
]
Gguf = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Keep the file for llama.cpp here; reused if there."),
]
Memory = Annotated[
    bool, typer.Option("--memory/--no-memory", help="Measure peak memory, in more processes.")
]
ResultFile = Annotated[
    Path | None,
    typer.Option(
        "--output", metavar="FILE", callback=_result_file, help="Write the JSON document here, too."
    ),
]
PictureFile = Annotated[
    Path | None,
    typer.Option(
        "--plot", metavar="FILE", callback=_picture_file, help="Draw the rows under the roofs."
    ),
]
