"""Options that `generate` and `chat` share: how much memory, and what is said about it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mobilemoe.cli.units import amount, parse_bytes

if TYPE_CHECKING:
    from mobilemoe.engine import Model, StartLine

MemoryLimit = Annotated[
    int | None,
    typer.Option(
        parser=parse_bytes,
        metavar="BYTES",
        help="Refuse to take more, such as 800MB; default: what the system allows.",
    ),
]
Resident = Annotated[
    int | None,
    typer.Option(
        parser=parse_bytes,
        metavar="BYTES",
        help="Keep this much of the routed experts in memory, such as 300MB; read others on use.",
    ),
]
RoutingTraceFile = Annotated[
    Path | None,
    typer.Option(
        "--routing-trace",
        metavar="FILE",
        help="Of `generate --save-routing`: with --resident, its hottest experts always stay.",
    ),
]
Verbose = Annotated[
    bool | None,
    typer.Option(
        "--verbose/--quiet",
        help="Say on stderr what runs and the memory plan; default: at a terminal.",
    ),
]


def say_start(line: StartLine, verbose: bool | None) -> None:
    """Print the start line on stderr, if that is a terminal or it was asked for."""
    if sys.stderr.isatty() if verbose is None else verbose:
        print(line, file=sys.stderr, flush=True)


def say_residency(model: Model) -> None:
    """Print what keeping only a part of the experts has cost; nothing if all were kept."""
    cost = model.residency()
    if cost is None:
        return
    print(
        f"resident experts: {cost.hit_rate:.1%} of {cost.hits + cost.misses} choices were in "
        f"memory; {amount(cost.bytes_read, 'B')} read in {cost.wait_seconds:.2f} s; at most "
        f"{amount(cost.peak_bytes, 'B')} of {amount(cost.budget_bytes, 'B')} in use, "
        f"{amount(cost.pinned_bytes, 'B')} pinned",
        file=sys.stderr,
    )
