"""The table of a sweep: JSON lines, one finished run each, in the order they finished."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mobilemoe.errors import MobileMoEError

Row = Mapping[str, Any]


class Rows:
    """Appends rows to `path`, each on the disk before `append` returns.

    A half-written last line, left by a process that was killed, is cut off at the start.

    Raises:
        MobileMoEError: if the file cannot be written or a whole line of it is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.done: dict[str, Row] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            content = path.read_bytes() if path.exists() else b""
            whole = content.rfind(b"\n") + 1
            self._file = path.open("ab", buffering=0)
            self._file.truncate(whole)
        except OSError as error:
            raise _refused(path, error) from error
        for row in _parsed(path, content[:whole]):
            self.done[row["key"]] = row

    def append(self, row: Row) -> None:
        """Write one row and wait for the disk.

        Raises:
            MobileMoEError: if the disk refuses; no half line stays.
        """
        line = json.dumps(row, allow_nan=False).encode() + b"\n"
        start = self._file.seek(0, os.SEEK_END)
        try:
            while line:
                line = line[self._file.write(line) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            self._file.truncate(start)
            raise _refused(self.path, error) from error
        self.done[row["key"]] = row

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_rows(path: Path) -> tuple[Row, ...]:
    """Return the rows of a sweep's table; a half-written last line is left out.

    Each has `key`, `fingerprint`, what was trained (`size` ... `weight_bytes`), `tokens`,
    `training_flops`, `loss` (nats per token) with its parts in `heldout`, routing at the end
    (`worst_load`, `dropped_share`, `router_entropy`), `refused_steps`, `seconds`, `curve`.

    Raises:
        MobileMoEError: if the file cannot be read or a line is damaged.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise MobileMoEError(f"cannot read the table {path}: {error}") from error
    return tuple(_parsed(path, content[: content.rfind(b"\n") + 1]))


def _parsed(path: Path, content: bytes) -> list[Row]:
    rows = []
    for number, line in enumerate(content.splitlines(), 1):
        try:
            row = json.loads(line)
            if not (isinstance(row, dict) and {"key", "fingerprint", "loss"} <= row.keys()):
                raise ValueError("not a row of a sweep")
        except ValueError as error:
            raise MobileMoEError(
                f"{path}: line {number} is damaged: {error}",
                hint="remove the line; its run is trained again",
            ) from error
        rows.append(row)
    return rows


def _refused(path: Path, error: OSError) -> MobileMoEError:
    return MobileMoEError(
        f"cannot write {path}: {error.strerror or error}", hint="choose another --out"
    )
