"""safetensors files, validated before anything is mapped and written without a copy in memory.

The format is an 8-byte little-endian header length, a JSON header, then the tensors. Ours is a
reader of its own because numpy has no bfloat16 and because every refusal names file, tensor,
what was found and what is allowed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from mobilemoe.atomic import atomic_file
from mobilemoe.checkpoint.layout import DTYPE_BYTES, StoredTensor
from mobilemoe.errors import CheckpointError

HEADER_LIMIT = 100_000_000
NUMPY_DTYPES: Mapping[str, type[np.generic]] = MappingProxyType(
    {"U8": np.uint8, "F16": np.float16, "BF16": np.uint16, "F32": np.float32}
)
HINT = "the file is damaged or incomplete; download or export it again"


@dataclass(frozen=True)
class Entry:
    """Where one tensor lies: dtype, shape and byte range from the start of the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True)
class TensorFile:
    """A validated, memory-mapped safetensors file."""

    path: Path
    header_bytes: int
    entries: Mapping[str, Entry]
    data: npt.NDArray[np.uint8]

    @classmethod
    def open(cls, path: Path) -> TensorFile:
        """Validate the header of `path` and map it.

        Raises:
            CheckpointError: if the file is missing, truncated or inconsistent.
        """
        size, header_bytes, header = _read_header(path)
        entries = {
            name: _entry(path, name, value, 8 + header_bytes)
            for name, value in header.items()
            if name != "__metadata__"
        }
        _check_cover(path, entries, 8 + header_bytes, size)
        data = np.memmap(path, np.uint8, mode="r")
        return cls(path, header_bytes, MappingProxyType(entries), data)

    @property
    def tensor_bytes(self) -> int:
        """Bytes of all tensors, header not included."""
        return sum(entry.stop - entry.start for entry in self.entries.values())

    def read(self, name: str) -> npt.NDArray[Any]:
        """Return tensor `name` as stored (BF16 as uint16 bit patterns), mapped where aligned."""
        entry = self.entries[name]
        dtype = np.dtype(NUMPY_DTYPES[entry.dtype])
        raw = self.data[entry.start : entry.stop]
        if entry.start % dtype.itemsize:
            raw = raw.copy()
        return raw.view(dtype).reshape(entry.shape)

    def read_float32(self, name: str) -> npt.NDArray[np.float32]:
        """Return a BF16, F16 or F32 tensor as float32."""
        stored = self.read(name)
        if self.entries[name].dtype == "BF16":
            return (stored.astype(np.uint32) << 16).view(np.float32)
        return stored.astype(np.float32)

    def check_layout(self, layout: Iterable[StoredTensor]) -> None:
        """Compare names, dtypes and shapes with `layout`.

        Raises:
            CheckpointError: naming the first tensor that is missing, unexpected or different.
        """
        expected = {tensor.name: tensor for tensor in layout}
        for name, tensor in expected.items():
            if name not in self.entries:
                raise CheckpointError(f"{self.path}: tensor {name} is missing", hint=HINT)
            _check_tensor(self.path, tensor, self.entries[name])
        unexpected = sorted(set(self.entries) - set(expected))
        if unexpected:
            raise CheckpointError(
                f"{self.path}: unexpected tensor {unexpected[0]} ({len(unexpected)} in all)",
                hint="the file does not belong to the config.json beside it",
            )


def write_tensor_file(
    path: Path, layout: Iterable[StoredTensor], tensors: Iterator[npt.NDArray[Any]]
) -> None:
    """Write `tensors`, one for each of `layout` and in its order, atomically to `path`.

    Raises:
        MobileMoEError: if the disk refuses; nothing is left behind.
    """
    layout = tuple(layout)
    with atomic_file(path) as file:
        file.write(encode_header(layout))
        for tensor, values in zip(layout, tensors, strict=True):
            assert values.shape == tensor.shape, (tensor, values.shape)
            assert values.nbytes == tensor.nbytes, (tensor, values.dtype)
            file.write(np.ascontiguousarray(values).data)


def encode_header(layout: Iterable[StoredTensor]) -> bytes:
    """Return the length prefix and JSON header, padded with spaces to a multiple of 8."""
    header: dict[str, Any] = {}
    offset = 0
    for tensor in layout:
        header[tensor.name] = {
            "dtype": tensor.dtypes[0],
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + tensor.nbytes],
        }
        offset += tensor.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _read_header(path: Path) -> tuple[int, int, dict[str, Any]]:
    """Return file size, header length and parsed header."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, HEADER_LIMIT):
                raise CheckpointError(
                    f"{path}: header says {length} bytes, the file has {size}", hint=HINT
                )
            text = file.read(length)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}", hint=HINT) from error
    try:
        header = json.loads(text, object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: header is not valid JSON: {error}", hint=HINT) from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{path}: header is not a JSON object", hint=HINT)
    return size, length, header


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key stands twice")
    return result


def _entry(path: Path, name: str, value: Any, base: int) -> Entry:
    try:
        dtype, shape = value["dtype"], value["shape"]
        start, stop = value["data_offsets"]
        numbers = [*shape, start, stop]
    except (TypeError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path}: header entry of {name!r} is malformed", hint=HINT
        ) from error
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise CheckpointError(f"{path}: {name} has a negative or non-integer size", hint=HINT)
    if dtype not in tuple(NUMPY_DTYPES):  # a tuple also takes what cannot be hashed
        raise CheckpointError(f"{path}: {name} is {dtype!r}; allowed: {', '.join(NUMPY_DTYPES)}")
    needed = prod(shape) * DTYPE_BYTES[dtype]
    if stop - start != needed:
        raise CheckpointError(
            f"{path}: {name} has {stop - start} bytes, {dtype} {shape} needs {needed}", hint=HINT
        )
    return Entry(dtype, tuple(shape), base + start, base + stop)


def _check_cover(path: Path, entries: Mapping[str, Entry], base: int, size: int) -> None:
    """Refuse gaps, overlaps and a wrong end: the tensors must cover the file exactly."""
    position = base
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].stop)):
        if entry.start != position:
            raise CheckpointError(
                f"{path}: {name} starts at byte {entry.start}, expected {position}", hint=HINT
            )
        position = entry.stop
    if position != size:
        raise CheckpointError(f"{path}: has {size} bytes, its header needs {position}", hint=HINT)


def _check_tensor(path: Path, tensor: StoredTensor, entry: Entry) -> None:
    if entry.shape != tensor.shape or entry.dtype not in tensor.dtypes:
        raise CheckpointError(
            f"{path}: {tensor.name} is {entry.dtype} {list(entry.shape)}; "
            f"allowed: {' or '.join(tensor.dtypes)} {list(tensor.shape)}",
            hint="config.json and model.safetensors do not belong together",
        )
