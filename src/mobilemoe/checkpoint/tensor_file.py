"""Reading tensors from one or several safetensors files, in slices and without a map.

A reader of its own because numpy has no bfloat16 and because every refusal names file, tensor,
what was found and what is allowed. Slices are read, not mapped: a file that is truncated
meanwhile is an error here, where touching a map would be a bus error.
"""

from __future__ import annotations

import errno
import os
import weakref
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from mobilemoe.checkpoint.header import (
    HINT,
    NUMPY_DTYPES,
    PREFIX_BYTES,
    Entry,
    header_length,
    header_limit,
    parse_header,
    printable,
)
from mobilemoe.checkpoint.layout import StoredTensor
from mobilemoe.checkpoint.text_files import open_regular
from mobilemoe.errors import CheckpointError

READ_BYTES = 1 << 24  # per system call
HINTS = {
    errno.ENOENT: "is the download complete?",
    errno.EACCES: "check its permissions",
    errno.EPERM: "check its permissions",
    errno.EMFILE: "allow more open files (`ulimit -n`), or convert it to fewer shards",
    errno.ENFILE: "close other programs: the system has no open file left",
}


class TensorFile:
    """One validated safetensors file, open for reading as long as this object lives."""

    def __init__(self, path: Path, layout: tuple[StoredTensor, ...]) -> None:
        """Open `path`, whose tensors are all or some of `layout`, and check its header.

        Raises:
            CheckpointError: if the file is missing, truncated or inconsistent.
        """
        self.path = path
        try:
            self._descriptor = open_regular(path)
            weakref.finalize(self, os.close, self._descriptor)
            self.file_bytes = os.fstat(self._descriptor).st_size
            prefix = os.pread(self._descriptor, PREFIX_BYTES, 0)
        except OSError as error:
            reason = error.strerror or str(error)
            hint = HINTS.get(error.errno or 0, "see that its disk and its folder are well")
            raise CheckpointError(f"cannot read {path}: {reason}", hint=hint) from error
        self.header_bytes = header_length(prefix, self.file_bytes, header_limit(layout), path)
        text = self._read_bytes(PREFIX_BYTES, self.header_bytes).tobytes()
        self.entries: Mapping[str, Entry] = MappingProxyType(
            parse_header(text, self.file_bytes, len(layout), path)
        )

    def rows(self, name: str, start: int, stop: int) -> npt.NDArray[Any]:
        """Return rows [start, stop) of tensor `name`, all axes but the last flattened.

        BF16 comes as uint16 bit patterns. A vector is one row.

        Raises:
            CheckpointError: if the file has been truncated since it was opened.
        """
        entry = self.entries[name]
        dtype = np.dtype(NUMPY_DTYPES[entry.dtype])
        width = entry.shape[-1] if entry.shape else 1
        row_bytes = width * dtype.itemsize
        raw = self._read_bytes(entry.start + start * row_bytes, (stop - start) * row_bytes)
        return raw.view(dtype).reshape(stop - start, width)

    def read(self, name: str) -> npt.NDArray[Any]:
        """Return tensor `name` as stored, in its shape; raises as `rows`."""
        shape = self.entries[name].shape
        return self.rows(name, 0, prod(shape[:-1])).reshape(shape)

    def _read_bytes(self, offset: int, count: int) -> npt.NDArray[np.uint8]:
        out = np.empty(count, np.uint8)
        done = 0
        while done < count:
            try:
                piece = os.pread(self._descriptor, min(READ_BYTES, count - done), offset + done)
            except OSError as error:
                raise CheckpointError(f"cannot read {self.path}: {error.strerror}") from error
            if not piece:
                raise CheckpointError(f"{self.path}: was truncated while in use", hint=HINT)
            out[done : done + len(piece)] = np.frombuffer(piece, np.uint8)
            done += len(piece)
        return out


@dataclass(frozen=True)
class Tensors:
    """All tensors of a checkpoint, over its files; `open_tensors` makes and checks it."""

    files: tuple[TensorFile, ...]
    homes: Mapping[str, TensorFile]

    @property
    def entries(self) -> Mapping[str, Entry]:
        """Where each tensor lies in its file."""
        return {name: file.entries[name] for name, file in self.homes.items()}

    @property
    def tensor_bytes(self) -> int:
        """Bytes of all tensors, headers not included."""
        return sum(entry.stop - entry.start for entry in self.entries.values())

    @property
    def header_bytes(self) -> int:
        """Bytes of all headers, their length prefixes included."""
        return sum(PREFIX_BYTES + file.header_bytes for file in self.files)

    @property
    def file_bytes(self) -> int:
        """Bytes of all files."""
        return sum(file.file_bytes for file in self.files)

    def dtype(self, name: str) -> str:
        """Return the stored dtype of tensor `name`."""
        return self.homes[name].entries[name].dtype

    def read(self, name: str) -> npt.NDArray[Any]:
        """Return tensor `name` as stored; see `TensorFile.read`."""
        return self.homes[name].read(name)

    def rows(self, name: str, start: int, stop: int) -> npt.NDArray[Any]:
        """Return rows of tensor `name` as stored; see `TensorFile.rows`."""
        return self.homes[name].rows(name, start, stop)

    def read_float32(self, name: str) -> npt.NDArray[np.float32]:
        """Return a BF16, F16 or F32 tensor as float32."""
        return to_float32(self.read(name), self.dtype(name))


def to_float32(stored: npt.NDArray[Any], dtype: str) -> npt.NDArray[np.float32]:
    """Return stored values as float32; BF16 comes as bit patterns."""
    if dtype == "BF16":
        return (stored.astype(np.uint32) << 16).view(np.float32)
    return stored.astype(np.float32)


def open_tensors(paths: Iterable[Path], layout: Iterable[StoredTensor]) -> Tensors:
    """Open `paths`, which together hold exactly the tensors of `layout`.

    Raises:
        CheckpointError: naming the file and the first tensor that is missing, unexpected,
            different, or in two files.
    """
    layout = tuple(layout)
    files = tuple(TensorFile(path, layout) for path in paths)
    homes: dict[str, TensorFile] = {}
    for name, file in _names(files):
        if name in homes:
            raise CheckpointError(
                f"{file.path}: tensor {printable(name)} stands in {homes[name].path.name} too",
                hint="the files do not belong together",
            )
        homes[name] = file
    _check_layout(files, homes, {tensor.name: tensor for tensor in layout})
    return Tensors(files, MappingProxyType(homes))


def _names(files: tuple[TensorFile, ...]) -> Iterator[tuple[str, TensorFile]]:
    for file in files:
        for name in file.entries:
            yield name, file


def _check_layout(
    files: tuple[TensorFile, ...],
    homes: Mapping[str, TensorFile],
    expected: Mapping[str, StoredTensor],
) -> None:
    where = files[0].path if len(files) == 1 else f"{files[0].path} and {len(files) - 1} more"
    for name, tensor in expected.items():
        if name not in homes:
            raise CheckpointError(f"{where}: tensor {name} is missing", hint=HINT)
        _check_tensor(homes[name].path, tensor, homes[name].entries[name])
    unexpected = sorted(set(homes) - set(expected))
    if unexpected:
        raise CheckpointError(
            f"{homes[unexpected[0]].path}: unexpected tensor {printable(unexpected[0])} "
            f"({len(unexpected)} in all)",
            hint="the file does not belong to the config.json beside it",
        )


def _check_tensor(path: Path, tensor: StoredTensor, entry: Entry) -> None:
    if entry.shape != tensor.shape or entry.dtype not in tensor.dtypes:
        raise CheckpointError(
            f"{path}: {tensor.name} is {entry.dtype} {list(entry.shape)}; "
            f"allowed: {' or '.join(tensor.dtypes)} {list(tensor.shape)}",
            hint="config.json and the weights do not belong together",
        )
