"""Options that the verbs which write checkpoints share."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from mobilemoe.cli.units import parse_bytes


class Format(StrEnum):
    """How weights are stored."""

    int4 = "int4"
    bf16 = "bf16"


FormatOption = Annotated[Format, typer.Option("--format", help="How weights are stored.")]
ShardSize = Annotated[
    int,
    typer.Option(
        "--shard-size",
        parser=parse_bytes,
        metavar="BYTES",
        help="Largest weights file; more are split into several and an index.",
    ),
]
SHARD_SIZE = "5GB"  # what other tools split at
