"""`mobilemoe init`: a checkpoint of random weights in the exact layout."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mobilemoe.cli.output import JsonOption, print_json
from mobilemoe.cli.progress import byte_progress
from mobilemoe.cli.units import amount, count
from mobilemoe.cli.weight_files import SHARD_SIZE, Format, FormatOption, ShardSize
from mobilemoe.config import ModelConfig
from mobilemoe.errors import MobileMoEError

if TYPE_CHECKING:
    from mobilemoe.checkpoint import Checkpoint

INIT_EXAMPLES = (
    "\b\nExamples:\n"
    "  mobilemoe init --preset nano path/to/new\n"
    "  mobilemoe init --preset L --format bf16 --shard-size 2GB path/to/new\n"
    "  mobilemoe init --config config.json path/to/new"
)


def _known_preset(name: str | None) -> str | None:
    """Return `name`; refuse one that is no preset as wrong usage, with the names there are."""
    if name is None:
        return None
    try:
        ModelConfig.preset(name)
    except MobileMoEError as error:
        raise typer.BadParameter(error.message) from error
    return name


def init(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of the new checkpoint.")],
    preset: Annotated[
        str | None,
        typer.Option(callback=_known_preset, help="Shape: S, M, L, nano, ... (`mobilemoe info`)."),
    ] = None,
    config_file: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="Shape: a config.json, as `plan` writes it."),
    ] = None,
    weight_format: FormatOption = Format.int4,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same bytes.")] = 0,
    dense_twin: Annotated[
        bool, typer.Option("--dense-twin", help="The dense model of equal INT4 size instead.")
    ] = False,
    shard_size: ShardSize = SHARD_SIZE,  # type: ignore[assignment]  # parsed like an argument
    as_json: JsonOption = False,
) -> None:
    """Write random weights in the released layout, for benchmarks and tests.

    It speaks no language: its tokenizer is a small stand-in with the model's special ids. It has
    a chat template if one of these ids ends a turn.
    """
    from mobilemoe.checkpoint import init_checkpoint, synthetic_tokenizer_json
    from mobilemoe.checkpoint.synthetic_tokenizer import ends_turns

    config = _shape(preset, config_file)
    config = config.dense_twin() if dense_twin else config
    started = time.monotonic()
    with byte_progress(f"writing {out}") as progress:
        written = init_checkpoint(
            out,
            config,
            weight_format.value,
            seed,
            tokenizer_json=synthetic_tokenizer_json(config),
            chat=ends_turns(config),
            shard_bytes=shard_size,
            progress=progress,
        )
    document = describe(written, time.monotonic() - started)
    if as_json:
        print_json(document)
    else:
        parameters, size = count(config.total_params), amount(document["file_bytes"], "B")
        print(f"{out}: {parameters} random parameters as {weight_format.value}")
        print(f"{size} in {document['files']} file(s)")


def _shape(preset: str | None, config_file: Path | None) -> ModelConfig:
    from mobilemoe.checkpoint.config_file import read_config

    if preset is not None and config_file is None:
        return ModelConfig.preset(preset)
    if config_file is not None and preset is None:
        return read_config(config_file)[0]
    raise typer.BadParameter("give either --preset or --config")


def describe(written: Checkpoint, seconds: float) -> dict[str, Any]:
    """Return the JSON document of a checkpoint that was just written."""
    tensors = written.tensors()
    return {
        "folder": str(written.folder),
        "weight_format": written.weight_format,
        "total_params": written.config.total_params,
        "tensor_bytes": tensors.tensor_bytes,
        "planned_tensor_bytes": written.config.weight_bytes(written.weight_format),
        "file_bytes": tensors.file_bytes,
        "files": len(tensors.files),
        "seconds": round(seconds, 3),
    }
