"""Writing tensors piece by piece into one or several safetensors files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
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


@dataclass
class _Place:
    """Where the next bytes of one tensor go."""

    file: BinaryIO
    position: int
    stop: int


class TensorWriter:
    """Fills the tensors of a layout, each from its beginning, in any order of tensors.

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
        """Write the headers.

        Raises:
            MobileMoEError: if the disk has less room than the files need.
            OSError: if the disk refuses.
        """
        self._folder = folder
        self._groups = split_layout(layout, shard_bytes)
        self._total = sum(t.nbytes for group in self._groups.values() for t in group)
        self._done = 0
        self._progress = progress
        self._files: list[BinaryIO] = []
        self._places: dict[str, _Place] = {}
        _check_room(folder, self._total)

    def __enter__(self) -> TensorWriter:
        for name, group in self._groups.items():
            self._begin(self._folder / name, group)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            for file in self._files:
                file.close()

    def append(self, name: str, values: npt.NDArray[Any]) -> None:
        """Write the next values of tensor `name`, of the dtype that the layout says."""
        place = self._places[name]
        data = np.ascontiguousarray(values).data.cast("B")
        assert place.position + len(data) <= place.stop, name
        place.file.seek(place.position)
        _write_all(place.file, data)
        place.position += len(data)
        self._done += len(data)
        self._progress(self._done, self._total)

    def _begin(self, path: Path, group: tuple[StoredTensor, ...]) -> None:
        file: BinaryIO = path.open("wb", buffering=0)
        self._files.append(file)
        header = encode_header(group)
        _write_all(file, memoryview(header))
        position = len(header)
        for tensor in group:
            self._places[tensor.name] = _Place(file, position, position + tensor.nbytes)
            position += tensor.nbytes

    def _finish(self) -> None:
        incomplete = [name for name, p in self._places.items() if p.position != p.stop]
        assert not incomplete, incomplete
        for file in self._files:
            os.fsync(file.fileno())
        if len(self._groups) > 1:
            atomic_write(self._folder / INDEX_FILE, encode_index(self._groups))


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
