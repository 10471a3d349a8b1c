"""From one weight format to another, streamed: BF16 to INT4, INT4 to BF16, or other shards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import sqrt
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mobilemoe.checkpoint.companions import read_companions
from mobilemoe.checkpoint.folder import Checkpoint, read_blocks, row_blocks
from mobilemoe.checkpoint.layout import StoredTensor, file_layout, stored_tensors
from mobilemoe.checkpoint.tensor_file import Tensors
from mobilemoe.checkpoint.tensor_writer import Progress, no_progress
from mobilemoe.checkpoint.text_files import read_json_object
from mobilemoe.checkpoint.write import Piece, config_values, encode_weight, write_pieces
from mobilemoe.errors import MobileMoEError
from mobilemoe.quant.int4 import dequantize, unpack
from mobilemoe.weights import Weight, WeightFormat

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class TensorError:
    """What the new format changed in one weight: ||new - old|| / ||old||, and the worst value."""

    name: str
    shape: tuple[int, ...]
    relative_error: float
    largest_error: float


@dataclass(frozen=True)
class Conversion:
    """A written checkpoint and what was lost on the way; weights that kept their bits are
    counted, not listed.
    """

    checkpoint: Checkpoint
    errors: tuple[TensorError, ...]
    unchanged: int
    relative_error: float  # over all changed weights together
    bytes_before: int
    bytes_after: int


@dataclass
class _Tally:
    """Sums over the blocks of one weight, or of all."""

    error: float = 0.0
    value: float = 0.0
    largest: float = 0.0

    def add(self, old: Float32, new: Float32) -> None:
        difference = new.astype(np.float64) - old
        self.error += float(np.square(difference).sum())
        self.value += float(np.square(old, dtype=np.float64).sum())
        self.largest = max(self.largest, float(np.abs(difference).max()))

    @property
    def relative(self) -> float:
        return sqrt(self.error / self.value) if self.value > 0 else 0.0


@dataclass
class _Converter:
    """Reads, encodes and measures one weight after another."""

    source: Checkpoint
    tensors: Tensors
    weight_format: WeightFormat
    tallies: dict[str, _Tally] = field(default_factory=dict)

    def pieces(self, weight: Weight) -> Iterator[Piece]:
        if self.weight_format == self.source.weight_format:
            yield from self._copies(weight)
            return
        tally = self.tallies.setdefault(weight.name, _Tally())
        for old in read_blocks(self.tensors, weight, self.source.weight_format):
            piece = encode_weight(weight, old, self.weight_format)
            tally.add(old, _decode(piece))
            yield piece

    def _copies(self, weight: Weight) -> Iterator[Piece]:
        names = [tensor.name for tensor in stored_tensors(weight, self.weight_format)]
        for start, stop in row_blocks(weight):
            yield tuple(self.tensors.rows(name, start, stop) for name in names)

    def layout(self) -> tuple[StoredTensor, ...]:
        """Return the layout of the result; a copy keeps the dtype of a float32 router."""
        layout = file_layout(self.source.config, self.weight_format)
        if self.weight_format != self.source.weight_format:
            return layout
        return tuple(_as_stored(tensor, self.tensors) for tensor in layout)


def _as_stored(tensor: StoredTensor, tensors: Tensors) -> StoredTensor:
    found = next(dtype for dtype in tensor.dtypes if dtype == tensors.dtype(tensor.name))
    return replace(tensor, dtypes=(found,))


def convert_checkpoint(
    source: Checkpoint,
    folder: Path,
    weight_format: WeightFormat,
    shard_bytes: int | None = None,
    progress: Progress = no_progress,
) -> Conversion:
    """Write `source` to `folder` as `weight_format`, with its tokenizer and chat files.

    BF16 to INT4 is round to nearest: every weight of the INT4 format is converted, the fused
    experts [E, in, out] included, and each one's error is in the result. INT4 weights are
    q * scale rounded to bfloat16; quantising those again changes scales, so a round trip is
    not the identity. The same format copies bits (other shards).

    Raises:
        CheckpointError: if the source is damaged; MobileMoEError: if the disk refuses or
            `folder` is, or holds, the source. What was at `folder` stays then.
    """
    _check_apart(source, folder)
    tensors = source.tensors()
    converter = _Converter(source, tensors, weight_format)
    values = config_values(read_json_object(source.folder / "config.json"), weight_format)
    texts = read_companions(source.folder)
    written = write_pieces(
        folder,
        source.config,
        weight_format,
        converter.pieces,
        values,
        texts,
        shard_bytes,
        progress,
        converter.layout(),
    )
    return _report(written, converter.tallies, tensors.tensor_bytes)


def _report(written: Checkpoint, tallies: Mapping[str, _Tally], before: int) -> Conversion:
    weights = written.config.weights()
    errors = tuple(
        TensorError(w.name, w.shape, tallies[w.name].relative, tallies[w.name].largest)
        for w in weights
        if w.name in tallies and tallies[w.name].error > 0
    )
    changed = [tallies[error.name] for error in errors]
    changed = [tallies[error.name] for error in errors]
    total = _Tally(sum(t.error for t in changed), sum(t.value for t in changed))
    after = written.tensors().tensor_bytes
    return Conversion(written, errors, len(weights) - len(errors), total.relative, before, after)


def _decode(piece: Piece) -> Float32:
    """Return the float32 values of one encoded piece."""
    if len(piece) == 2:
        return dequantize(unpack(piece[0]), piece[1])
    if piece[0].dtype == np.uint16:
        return (piece[0].astype(np.uint32) << 16).view(np.float32)
    return piece[0]


def _check_apart(source: Checkpoint, folder: Path) -> None:
    """Refuse a result that would replace its own source, or the files that it links to."""
    target = folder.resolve()
    for path in (source.folder, *source.shards):
        if path.resolve().is_relative_to(target):
            raise MobileMoEError(
                f"{folder} is the source itself, or holds it: {path}",
                hint="give another folder for the result",
            )
