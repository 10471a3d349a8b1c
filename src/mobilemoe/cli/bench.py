"""`mobilemoe bench`: how fast a model reads and writes here, and what share of the ceilings."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mobilemoe.cli.bench_options import (
    Depths,
    Generated,
    Gguf,
    Memory,
    Output,
    OutputFormat,
    PictureFile,
    Prompts,
    ResultFile,
    Rounds,
    ThreadList,
    Versus,
    parse_numbers,
)
from mobilemoe.cli.bench_view import csv_table, markdown
from mobilemoe.cli.output import JsonOption, print_json
from mobilemoe.cli.running import PATH_HELP
from mobilemoe.cli.sampling import ActivationsOption, KvOption

if TYPE_CHECKING:
    from mobilemoe.profile.benchmark import Plan

BENCH_EXAMPLES = (
    "\b\nExamples:\n"
    "  mobilemoe bench path/to/checkpoint\n"
    "  mobilemoe bench path/to/checkpoint -p 512 -n 128 -d 0,4096 -t 2 -r 5 -o json\n"
    "  mobilemoe bench path/to/checkpoint -p 512,2048 -n 0 --vs llama.cpp --plot roofline.svg\n"
    "  mobilemoe bench path/to/checkpoint --vs path/to/dense -o csv --output result.json"
)


def bench(
    path: Annotated[str, typer.Argument(metavar="PATH", help=PATH_HELP)],
    prompts: Prompts = "512",
    generated: Generated = "128",
    depths: Depths = "0",
    threads: ThreadList = None,
    rounds: Rounds = 5,
    output_format: OutputFormat = Output.md,
    versus: Versus = None,
    gguf: Gguf = None,
    activations: ActivationsOption = None,
    kv: KvOption = None,
    memory: Memory = True,
    output: ResultFile = None,
    plot: PictureFile = None,
    as_json: JsonOption = False,
) -> None:
    """Measure prefill and decode with real prompts, beside this machine's own ceilings.

    Prefill appends -p tokens after -d others; decode appends -n single tokens. Speeds are
    medians of -r rounds after an untimed one. Numbers on a busy machine mean little.
    """
    from mobilemoe.profile.benchmark import Plan, run_benchmark

    plan = Plan(
        prompts=parse_numbers(prompts, 0),
        generated=parse_numbers(generated, 0),
        depths=parse_numbers(depths, 0),
        threads=parse_numbers(threads, 1) if threads is not None else (),
        rounds=rounds,
        activations=activations.value if activations else None,
        kv=kv.value if kv else None,
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
