"""Writing tensors piece by piece into one or several safetensors files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from mobilemoe.atomic import atomic_write
from mobilemoe.checkpoint.header import encode_header
from mobilemoe.checkpoint.layout import StoredTensor
from mobilemoe.checkpoint.shards import INDEX_FILE, encode_index, split_layout
from mobilemoe.errors import MobileMoEError

Progress = Callable[[int, int], None]  # bytes written, bytes in all


def no_progress(done: int, total: int) -> None:
    """Show nothing."""


class _OpenFile:
    """One safetensors file while its tensors come in."""

    def __init__(self, path: Path, group: tuple[StoredTensor, ...]) -> None:
        header = encode_header(group)
        self._positions: dict[str, int] = {}
        self._stops: dict[str, int] = {}
        position = len(header)
        for tensor in group:
            self._positions[tensor.name] = position
            position += tensor.nbytes
            self._stops[tensor.name] = position
        self._file: BinaryIO = path.open("wb", buffering=0)
        try:
            _write_all(self._file, memoryview(header))
        except BaseException:
            self._file.close()
            raise

    def append(self, name: str, data: memoryview) -> None:
        """Write the next bytes of tensor `name`."""
        position = self._positions[name]
        assert position + len(data) <= self._stops[name], name
        self._file.seek(position)
        _write_all(self._file, data)
        self._positions[name] = position + len(data)

    @property
    def missing(self) -> list[str]:
        """The tensors that are not complete."""
        return [name for name, stop in self._stops.items() if self._positions[name] != stop]

    def close(self, sync: bool) -> None:
        """Close the file; with `sync` its content is on the disk then."""
        with self._file:
            if sync:
                os.fsync(self._file.fileno())


class TensorWriter:
    """Fills the tensors of a layout, each from its beginning; files are opened as they come.

    Files are complete and on the disk (fsync) when the `with` block ends without an error; the
    folder is meant to be a temporary one that is renamed afterwards (`atomic_folder`).
    """

    def __init__(
        self,
        folder: Path,
        layout: Iterable[StoredTensor],
        shard_bytes: int | None = None,
        progress: Progress = no_progress,
    ) -> None:
        """Plan the files.

        Raises:
            MobileMoEError: if the disk has less room than they need.
        """
        self._folder = folder
        self._groups = split_layout(layout, shard_bytes)
        self._homes = {t.name: file for file, group in self._groups.items() for t in group}
        self._total = sum(t.nbytes for group in self._groups.values() for t in group)
        self._done = 0
        self._progress = progress
        self._open: dict[str, _OpenFile] = {}
        self._finished: set[str] = set()
        _check_room(folder, self._total)

    def __enter__(self) -> TensorWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for file in self._open.values():
            file.close(sync=False)
        if kind is None:
            unfinished = set(self._groups) - self._finished
            assert not unfinished, unfinished
            if len(self._groups) > 1:
                atomic_write(self._folder / INDEX_FILE, encode_index(self._groups))

    def append(self, name: str, values: npt.NDArray[Any]) -> None:
        """Write the next values of tensor `name`, of the dtype that the layout says.

        Raises:
            OSError: if the disk refuses.
        """
        home = self._homes[name]
        if home not in self._open:
            self._open[home] = _OpenFile(self._folder / home, self._groups[home])
        data = np.ascontiguousarray(values).data.cast("B")
        self._open[home].append(name, data)
        if not self._open[home].missing:
            self._open.pop(home).close(sync=True)
            self._finished.add(home)
        self._done += len(data)
        self._progress(self._done, self._total)


def _write_all(file: BinaryIO, data: memoryview) -> None:
    while data:
        data = data[file.write(data) :]


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise MobileMoEError(
            f"{folder.parent}: the disk has {free / 1e9:.2f} GB free; {needed / 1e9:.2f} GB needed",
            hint="free some space, or give a folder on another disk",
        )
