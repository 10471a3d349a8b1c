"""`mobilemoe convert`: BF16 to INT4, INT4 to BF16, or the same bits in other shards."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mobilemoe.cli.init import describe
from mobilemoe.cli.output import JsonOption, print_json, print_table
from mobilemoe.cli.progress import byte_progress
from mobilemoe.cli.units import amount
from mobilemoe.cli.weight_files import SHARD_SIZE, FormatOption, ShardSize

if TYPE_CHECKING:
    from mobilemoe.checkpoint import Conversion

CONVERT_EXAMPLES = (
    "\b\nExamples:\n"
    "  mobilemoe convert path/to/bf16 path/to/new --format int4\n"
    "  mobilemoe convert path/to/int4 path/to/new --format bf16 --shard-size 2GB --json"
)


def convert(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A checkpoint folder or a hub id.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of the new checkpoint.")],
    weight_format: FormatOption,
    shard_size: ShardSize = SHARD_SIZE,  # type: ignore[assignment]  # parsed like an argument
    as_json: JsonOption = False,
) -> None:
    """Store weights in another format, and print what that changed in every one of them."""
    from mobilemoe.checkpoint import convert_checkpoint, open_checkpoint

    started = time.monotonic()
    opened = open_checkpoint(source)
    with byte_progress(f"writing {out}") as progress:
        conversion = convert_checkpoint(opened, out, weight_format.value, shard_size, progress)
    if as_json:
        print_json(document(conversion, time.monotonic() - started))
    else:
        _print(conversion, opened.weight_format)


def document(conversion: Conversion, seconds: float) -> dict[str, Any]:
    """Return the JSON document of a conversion."""
    from dataclasses import asdict

    return {
        **describe(conversion.checkpoint, seconds),
        "bytes_before": conversion.bytes_before,
        "relative_error": conversion.relative_error,
        "unchanged_tensors": conversion.unchanged,
        "errors": [asdict(error) for error in conversion.errors],
    }


def _print(conversion: Conversion, before: str) -> None:
    rows = [
        (
            error.name,
            " x ".join(map(str, error.shape)),
            f"{error.relative_error:.3%}",
            f"{error.largest_error:.3g}",
        )
        for error in conversion.errors
    ]
    after = conversion.checkpoint.weight_format
    if rows:
        header = ("tensor", "shape", "relative error", "largest error")
        print_table(f"{before} -> {after}: ||new - old|| / ||old||", header, rows)
    kept = f"{conversion.unchanged} tensors kept their values"
    print(f"all changed weights together: relative error {conversion.relative_error:.3%}; {kept}")
    size = f"{amount(conversion.bytes_before, 'B')} -> {amount(conversion.bytes_after, 'B')}"
    print(f"{conversion.checkpoint.folder}: {size} of tensors")
