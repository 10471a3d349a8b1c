"""What verification reads from a checkpoint, piece by piece: the only file here that knows how.

Nothing here holds a whole model, nor all experts of a layer: a `Piece` is one linear, one expert
or some rows of the embedding. As in the checkpoint's own reader, rows are those of a weight with
all axes but the last flattened; a vector is one row.

N elements along a weight's last axis, n rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mobilemoe.checkpoint import Checkpoint, Tensors, stored_tensors
from mobilemoe.checkpoint.tensor_file import to_float32
from mobilemoe.config import ModelConfig
from mobilemoe.errors import MobileMoEError
from mobilemoe.quant import dequantize, unpack
from mobilemoe.weights import GROUP_SIZE, QUANTIZED_KINDS, Weight, WeightFormat

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Stored = npt.NDArray[Any]

CHUNK_ELEMENTS = 1 << 20  # of a weight that is read or compared in one go


@dataclass(frozen=True)
class Piece:
    """One matrix: `values` [n, N] float64, and `scales` [n, N/32] of its INT4 groups.

    In a BF16 file the scales are those that rounding to INT4 would choose.
    """

    values: Float64
    scales: Float64

    @cached_property
    def squares(self) -> Float64:
        """The squares of `values`."""
        return np.square(self.values)

    def columns(self, start: int, stop: int) -> Piece:
        """Return the columns from `start` to `stop`, both multiples of 32."""
        groups = slice(start // GROUP_SIZE, stop // GROUP_SIZE)
        return Piece(self.values[:, start:stop], self.scales[:, groups])

    def rows(self, start: int, stop: int) -> Piece:
        """Return the rows from `start` to `stop`."""
        return Piece(self.values[start:stop], self.scales[start:stop])


class Weights:
    """The weights of a checkpoint by their BF16 names, dequantised one piece at a time.

    Raises:
        CheckpointError: if the weights are missing, damaged or belong to another config.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.config: ModelConfig = checkpoint.config
        self.weight_format: WeightFormat = checkpoint.weight_format
        self.tensors: Tensors = checkpoint.tensors()
        self._weights = {weight.name: weight for weight in checkpoint.config.weights()}

    def __iter__(self) -> Iterator[Weight]:
        return iter(self._weights.values())

    def names(self, weight: Weight) -> tuple[str, ...]:
        """Return the stored tensors of `weight`: packed values and scales, or just one."""
        return tuple(tensor.name for tensor in stored_tensors(weight, self.weight_format))

    def stored(self, weight: Weight, start: int, stop: int) -> list[Stored]:
        """Return rows of each stored tensor of `weight` as they are."""
        return [self.tensors.rows(name, start, stop) for name in self.names(weight)]

    def floats(self, weight: Weight, start: int, stop: int) -> Float32:
        """Return rows [n, N] of `weight` as float32, dequantised if need be."""
        values, *scales = self.stored(weight, start, stop)
        if scales:
            return dequantize(unpack(values), scales[0])
        return to_float32(values, self.tensors.dtype(self.names(weight)[0]))

    def array(self, name: str) -> Float64:
        """Return the whole of a small weight in its own shape: a norm, a router, a bias."""
        weight = self._weights[name]
        values = self.floats(weight, 0, rows_of(weight))
        return values.astype(np.float64).reshape(weight.shape)

    def piece(self, name: str, start: int = 0, stop: int | None = None) -> Piece:
        """Return rows of the linear, expert or embedding `name`; all of them by default."""
        weight = self._weights[name]
        stop = rows_of(weight) if stop is None else stop
        values = self.floats(weight, start, stop)
        return Piece(values.astype(np.float64), self._scales(weight, values, start, stop))

    def expert(self, name: str, index: int) -> Piece:
        """Return expert `index` of `name`: values [in, out]."""
        rows = self._weights[name].shape[1]
        return self.piece(name, index * rows, (index + 1) * rows)

    def _scales(self, weight: Weight, values: Float32, start: int, stop: int) -> Float64:
        _, *scales = self.names(weight)
        if scales:
            return self.tensors.rows(scales[0], start, stop).astype(np.float64)
        largest = np.abs(values).reshape(len(values), -1, GROUP_SIZE).max(-1)
        chosen: Float64 = largest.astype(np.float64) * (2 / 15)
        return chosen


def rows_of(weight: Weight) -> int:
    """Return the rows of `weight` with all axes but the last flattened."""
    return prod(weight.shape[:-1])


def row_chunks(rows: int, width: int) -> Iterator[tuple[int, int]]:
    """Cut `rows` rows of `width` elements into ranges of about CHUNK_ELEMENTS."""
    step = max(1, CHUNK_ELEMENTS // width)
    for start in range(0, rows, step):
        yield start, min(rows, start + step)


def is_quantised(weight: Weight) -> bool:
    """Whether an INT4 file holds `weight` as integers and scales."""
    return weight.kind in QUANTIZED_KINDS


def weight_paths(checkpoint: Checkpoint) -> tuple[Path, ...]:
    """Return the safetensors files that are there, damaged or not."""
    try:
        return tuple(path for path in checkpoint.shards if path.is_file())
    except MobileMoEError:
        return ()  # the index is broken, which opening the tensors says
