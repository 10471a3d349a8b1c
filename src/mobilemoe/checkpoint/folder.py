"""A checkpoint folder opened for reading: config.json, safetensors files, tokenizer files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mobilemoe.checkpoint.config_file import CONFIG_FILE, read_config
from mobilemoe.checkpoint.hub import fetch, is_hub_id
from mobilemoe.checkpoint.layout import file_layout, stored_tensors
from mobilemoe.checkpoint.place import hint_for
from mobilemoe.checkpoint.shards import check_placement, weight_files
from mobilemoe.checkpoint.shipped import is_shipped, shipped_folder
from mobilemoe.checkpoint.tensor_file import Tensors, open_tensors, to_float32
from mobilemoe.config import ModelConfig
from mobilemoe.errors import CheckpointError, MobileMoEError
from mobilemoe.quant.int4 import dequantize, unpack
from mobilemoe.weights import Weight, WeightFormat

Float32 = npt.NDArray[np.float32]

BLOCK_ELEMENTS = 1 << 20  # of a weight that is read, converted or made in one piece


@dataclass(frozen=True)
class Checkpoint:
    """A folder whose config.json is understood; `open_checkpoint` makes it."""

    folder: Path
    config: ModelConfig
    weight_format: WeightFormat

    @property
    def shards(self) -> tuple[Path, ...]:
        """The safetensors files, in order.

        Raises:
            CheckpointError: if the index is malformed or a file that it names is missing.
        """
        return weight_files(self.folder)

    def tensors(self) -> Tensors:
        """Open the weights after comparing every tensor with the config.

        Raises:
            CheckpointError: if a file is missing, damaged or belongs to another config.
        """
        tensors = open_tensors(self.shards, file_layout(self.config, self.weight_format))
        check_placement(self.folder, tensors.homes)
        return tensors

    def read_weights(self) -> Iterator[tuple[Weight, Float32]]:
        """Yield every logical weight as float32, dequantised if the file is INT4."""
        tensors = self.tensors()
        for weight in self.config.weights():
            yield weight, read_weight(tensors, weight, self.weight_format)


def open_checkpoint(path: str | Path, revision: str | None = None) -> Checkpoint:
    """Read and check the config.json of `path`; weights are checked when opened.

    `path` is a folder, "shipped" for the package's own model, or as text a model of the hub:
    `owner/name`, `owner/name@revision`, or
    `revision` given apart (`hub.is_hub_id`). What the hub's cache lacks is downloaded
    (`hub.fetch`).

    Raises:
        CheckpointError: if the folder or its config.json is missing or not of this family.
        MobileMoEError: if the hub refuses or cannot be reached.
    """
    folder = _local_folder(path, revision)
    if not folder.is_dir():
        raise CheckpointError(
            f"no checkpoint folder at {path}",
            hint=hint_for(path),
        )
    return Checkpoint(folder, *read_config(folder / CONFIG_FILE))


def _local_folder(path: str | Path, revision: str | None) -> Path:
    if is_shipped(path) and revision is None:
        return shipped_folder()
    if isinstance(path, str) and is_hub_id(path, revision):
        return fetch(path, revision)
    if revision is not None:
        hub_id = isinstance(path, Path) and is_hub_id(str(path), revision)
        raise MobileMoEError(
            f"revision is {revision!r}, and {path} is not a model of the hub",
            hint=hint_for(path) if hub_id else "give owner/name, or leave the revision out",
        )
    return Path(path)


def read_weight(tensors: Tensors, weight: Weight, weight_format: WeightFormat) -> Float32:
    """Return one logical weight as float32 in its own shape."""
    rows = prod(weight.shape[:-1])
    return _decode_rows(tensors, weight, weight_format, 0, rows).reshape(weight.shape)


def read_blocks(tensors: Tensors, weight: Weight, weight_format: WeightFormat) -> Iterator[Float32]:
    """Yield one logical weight as float32 in blocks of rows [n, last axis]."""
    for start, stop in row_blocks(weight):
        yield _decode_rows(tensors, weight, weight_format, start, stop)


def row_blocks(weight: Weight) -> Iterator[tuple[int, int]]:
    """Yield row ranges that cover `weight`; its axes but the last are flattened to rows."""
    rows = prod(weight.shape[:-1])
    step = max(1, BLOCK_ELEMENTS // weight.shape[-1])
    for start in range(0, rows, step):
        yield start, min(rows, start + step)


def _decode_rows(
    tensors: Tensors, weight: Weight, weight_format: WeightFormat, start: int, stop: int
) -> Float32:
    names = [tensor.name for tensor in stored_tensors(weight, weight_format)]
    stored = [tensors.rows(name, start, stop) for name in names]
    if len(stored) == 2:
        return dequantize(unpack(stored[0]), stored[1])
    return to_float32(stored[0], tensors.dtype(names[0]))
