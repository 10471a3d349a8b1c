"""`mobilemoe bench`: how fast a model reads and writes here, and what share of the ceilings."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mobilemoe.cli.bench_view import csv_table, markdown
from mobilemoe.cli.output import JsonOption, print_json
from mobilemoe.cli.running import PATH_HELP
from mobilemoe.cli.sampling import ActivationsOption

if TYPE_CHECKING:
    from mobilemoe.profile.benchmark import Plan

BENCH_EXAMPLES = (
    "\b\nExamples:\n"
    "  mobilemoe bench path/to/checkpoint\n"
    "  mobilemoe bench path/to/checkpoint -p 512 -n 128 -d 0,4096 -t 2 -r 5 -o json\n"
    "  mobilemoe bench path/to/checkpoint -p 512,2048 -n 0 --vs llama.cpp --plot roofline.svg\n"
    "  mobilemoe bench path/to/checkpoint --vs path/to/dense -o csv --output result.json"
)
PICTURES = (".png", ".svg", ".pdf")


class Output(StrEnum):
    """How the result is printed."""

    md = "md"
    json = "json"
    csv = "csv"


def _numbers(low: int) -> Callable[[str], list[int]]:
    """Return a parser of comma lists of whole numbers, each at least `low`."""

    def parse(text: str) -> list[int]:
        parts = [part.strip() for part in text.split(",")]
        if not all(part.isascii() and part.isdigit() and int(part) >= low for part in parts):
            raise typer.BadParameter(f"{text!r}: write whole numbers of at least {low}, as 0,4096")
        return [int(part) for part in parts]

    return parse


def _result_file(path: Path | None) -> Path | None:
    """Refuse a format's name: llama-bench spells -o `--output`, here that is a file."""
    if path is not None and str(path) in list(Output):
        raise typer.BadParameter(f"{path} is a format; write -o {path}, or a file's name")
    return path


def _picture_file(path: Path | None) -> Path | None:
    if path is not None and path.suffix not in PICTURES:
        raise typer.BadParameter(f"{path}: allowed endings are {', '.join(PICTURES)}")
    return path


LENGTHS_HELP = "; comma list, 0 leaves it out."


def bench(
    path: Annotated[str, typer.Argument(metavar="PATH", help=PATH_HELP)],
    prompts: Annotated[
        str,
        typer.Option("-p", "--n-prompt", callback=_numbers(0), help=f"Prompt tokens{LENGTHS_HELP}"),
    ] = "512",
    generated: Annotated[
        str,
        typer.Option("-n", "--n-gen", callback=_numbers(0), help=f"Decoded tokens{LENGTHS_HELP}"),
    ] = "128",
    depths: Annotated[
        str,
        typer.Option(
            "-d", "--n-depth", callback=_numbers(0), help="Tokens before the measured ones; list."
        ),
    ] = "0",
    threads: Annotated[
        str | None,
        typer.Option("-t", "--threads", help="Comma list; default: chosen by the engine."),
    ] = None,
    rounds: Annotated[
        int, typer.Option("-r", "--repetitions", min=1, help="Timed rounds of every row.")
    ] = 5,
    output_format: Annotated[
        Output, typer.Option("-o", "--output-format", help="What is printed.")
    ] = Output.md,
    versus: Annotated[
        str | None,
        typer.Option(
            "--vs", metavar="llama.cpp|PATH", help="Measure this too, round by round in turns."
        ),
    ] = None,
    gguf: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Keep the file for llama.cpp here; reused if there."),
    ] = None,
    activations: ActivationsOption = None,
    memory: Annotated[
        bool, typer.Option("--memory/--no-memory", help="Measure peak memory, in more processes.")
    ] = True,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", callback=_result_file, help="Write the JSON document here as well."
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            callback=_picture_file,
            help="Draw the rows under both roofs (png, svg).",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure prefill and decode with real prompts, beside this machine's own ceilings.

    Prefill appends -p tokens after -d others; decode appends -n single tokens. Speeds are
    medians of -r rounds after an untimed one. Numbers on a busy machine mean little.
    """
    from mobilemoe.profile.benchmark import Plan, run_benchmark

    plan = Plan(
        prompts=tuple(prompts),  # type: ignore[arg-type]  # the callbacks have parsed them
        generated=tuple(generated),  # type: ignore[arg-type]
        depths=tuple(depths),  # type: ignore[arg-type]
        threads=tuple(_numbers(1)(threads)) if threads is not None else (),
        rounds=rounds,
        activations=activations.value if activations else None,
        versus=versus,
        gguf=gguf,
        memory=memory,
    )
    _warn(plan)
    if plot is not None:
        from mobilemoe.profile.roofline import require_matplotlib

        require_matplotlib()
    with step_line() as progress:
        document = run_benchmark(path, plan, progress)
    _write(document, output, plot)
    _print(document, Output.json if as_json else output_format)


def _warn(plan: Plan) -> None:
    from mobilemoe.engine.threads import oversubscription, thread_plan

    for count in plan.threads:
        if warning := oversubscription(count, thread_plan()):
            print(f"warning: {warning}", file=sys.stderr)


@contextmanager
def step_line() -> Iterator[Callable[[str], None]]:
    """Yield `show(text)`: one line on stderr that is written over, or line by line in a file."""
    terminal = sys.stderr.isatty()

    def show(text: str) -> None:
        print(
            f"\r\x1b[K{text}" if terminal else text, end="" if terminal else "\n", file=sys.stderr
        )
        sys.stderr.flush()

    try:
        yield show
    finally:
        if terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _write(document: dict[str, Any], output: Path | None, plot: Path | None) -> None:
    from mobilemoe.atomic import atomic_write

    if output is not None:
        atomic_write(output, json.dumps(document, indent=1, allow_nan=False) + "\n")
    if plot is not None:
        from mobilemoe.profile.roofline import draw_roofline

        draw_roofline(document, plot)


def _print(document: dict[str, Any], output_format: Output) -> None:
    if output_format is Output.json:
        print_json(document)
    else:
        print(csv_table(document) if output_format is Output.csv else markdown(document), end="")
