"""Local files of a source: found in a fixed order, opened through their compression."""

from __future__ import annotations

import glob
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from mobilemoe.data.sources.records import MAX_RECORD_BYTES
from mobilemoe.errors import MobileMoEError

# What the readers of damaged or unreadable content raise; pyarrow's errors are OSErrors or
# ValueErrors.
READ_ERRORS = (OSError, EOFError, zlib.error, ValueError)

_BLOCK = 2**20
_SMALL = 2**16  # what is lost before the end of a zstd file that is cut short
_ZSTD = b"\x28\xb5\x2f\xfd"


def source_files(pattern: str, name: str) -> list[Path]:
    """Return the files that `pattern` (a glob, ** for any depth) names, sorted by path.

    Raises:
        MobileMoEError: if there is none.
    """
    found = sorted(Path(path) for path in glob.glob(pattern, recursive=True))  # noqa: PTH207
    files = [path for path in found if path.is_file()]
    if not files:
        raise MobileMoEError(
            f"source {name}: no file is named by {pattern}",
            hint="paths are relative to the current folder; quote a pattern with *",
        )
    return files


def open_content(path: Path) -> IO[bytes]:
    """Open the content of a plain, .gz or .zst file, and read its first bytes as a check.

    Raises:
        MobileMoEError: naming the file, if it cannot be opened or is not what its name says.
    """
    try:
        file = _opened(path)
        file.peek(1)
    except MobileMoEError:
        raise
    except READ_ERRORS as error:
        raise MobileMoEError(
            f"{path}: cannot be read: {error}", hint="is the download complete?"
        ) from error
    opened: IO[bytes] = file
    return opened


def _opened(path: Path) -> Any:
    if path.suffix == ".gz":
        return gzip.open(path, "rb")
    if path.suffix == ".zst":
        pyarrow = need_pyarrow(path)
        _check_zstd(path)
        return io.BufferedReader(pyarrow.input_stream(str(path), compression="zstd"), _SMALL)
    return path.open("rb", buffering=_BLOCK)


def _check_zstd(path: Path) -> None:
    """Refuse other content, which the library takes for an empty file."""
    with path.open("rb") as file:
        start = file.read(len(_ZSTD))
    if start and start != _ZSTD:
        raise ValueError("not a zstd file")


def need_pyarrow(path: Path) -> Any:
    """Return the module pyarrow, which reads parquet and zstd.

    Raises:
        MobileMoEError: if it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MobileMoEError(
            f"{path}: reading it needs pyarrow", hint='pip install "mobilemoe[train]"'
        ) from error
    return pyarrow


def skip(file: IO[bytes], count: int, compressed: bool) -> None:
    """Move `count` bytes on; compressed content must be read for that."""
    if not compressed:
        file.seek(count)
        return
    while count > 0:
        block = file.read(min(count, _BLOCK))
        if not block:
            return
        count -= len(block)


def lines(file: IO[bytes], byte: int) -> Iterator[tuple[int, bytes | None]]:
    """Yield the offset and the bytes of each line from `byte` on; None for one too long.

    A line is over after its newline byte. No more than `MAX_RECORD_BYTES` are held.
    """
    while line := file.readline(MAX_RECORD_BYTES + 1):
        start, size = byte, len(line)
        too_long = size > MAX_RECORD_BYTES
        while too_long and not line.endswith(b"\n"):
            line = file.readline(_BLOCK)
            size += len(line)
            if not line:
                break
        byte += size
        yield start, None if too_long else line
