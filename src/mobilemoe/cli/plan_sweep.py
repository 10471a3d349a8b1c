"""`mobilemoe plan sweep`: small models in a grid over experts, one row per run."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mobilemoe.cli.output import JsonOption, print_json

if TYPE_CHECKING:
    from mobilemoe.sweep import RunFailed, RunFinished, Sweep

SWEEP_EXAMPLES = (
    "\b\nExamples:\n"
    "  mobilemoe plan sweep recipes/sweep_nano.toml --workers 2\n"
    "  mobilemoe plan sweep recipes/sweep_nano.toml --dry-run\n"
    "  mobilemoe plan fit runs/sweep_nano/rows.jsonl"
)


def sweep(
    recipe: Annotated[Path, typer.Argument(metavar="SWEEP", help="A TOML file of grids.")],
    out: Annotated[
        Path | None, typer.Option(metavar="ROWS", help="The table: runs/NAME/rows.jsonl.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Runs at a time; by default one per core.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Of each run.")] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list the runs.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Train a grid of small models; Ctrl-C keeps every finished run, a second start goes on."""
    from mobilemoe.sweep import load_sweep

    planned = load_sweep(recipe)
    out = out or Path("runs") / planned.name / "rows.jsonl"
    if dry_run:
        _print_runs(planned, as_json)
        return
    failed = _carry_out(planned, out, workers or _cores(), threads)
    document = {"sweep": planned.name, "rows": str(out), "runs": len(planned.runs())}
    document |= {"failed": failed}
    if as_json:
        print_json(document)
    else:
        print(f"{out}: {len(planned.runs()) - len(failed)} runs")
    if failed:
        raise typer.Exit(1)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _carry_out(planned: Sweep, out: Path, workers: int, threads: int) -> list[str]:
    """Train what is missing and return the keys of the runs that failed."""
    from mobilemoe.sweep import RunFailed, carry_out

    failed = []
    for event in carry_out(planned, out, out.parent / "data", workers, threads):
        print(_line(event), file=sys.stderr, flush=True)
        if isinstance(event, RunFailed):
            failed.append(event.key)
    return failed


def _line(event: RunFinished | RunFailed) -> str:
    from mobilemoe.sweep import RunFinished

    progress = event.progress
    left = "" if progress.left_s is None else f", about {progress.left_s / 60:.0f} min left"
    head = f"[{progress.done}/{progress.total}{left}]"
    if isinstance(event, RunFinished):
        row = event.row
        return f"{head} {row['key']}: loss {row['loss']:.4f} in {row['seconds']:.0f} s"
    return f"{head} {event.key} failed: {event.error}"


def _print_runs(planned: Sweep, as_json: bool) -> None:
    runs: list[dict[str, Any]] = []
    for run in planned.runs():
        config = run.config(planned.training)
        runs.append(
            {
                "key": run.key,
                "active_params": config.active_params,
                "total_params": config.total_params,
                "weight_bytes": config.weight_bytes("int4"),
                "tokens": run.tokens,
            }
        )
    if as_json:
        print_json({"sweep": planned.name, "runs": runs})
        return
    for each in runs:
        print(
            f"{each['key']}  {each['active_params'] / 1e6:.2f}M active of "
            f"{each['total_params'] / 1e6:.2f}M, {each['tokens']:,} tokens"
        )
    print(f"{len(runs)} runs, {sum(each['tokens'] for each in runs):,} tokens")
