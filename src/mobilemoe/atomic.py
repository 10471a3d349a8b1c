"""Files that appear whole or not at all: temporary name, fsync, rename."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from mobilemoe.errors import MobileMoEError


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file beside `path`; rename it to `path` when the block succeeds.

    Raises:
        MobileMoEError: if the disk is full or refuses the write. `path` keeps its old content.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    except OSError as error:
        raise _disk_error(path, error) from error
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise _disk_error(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def atomic_write(path: Path, content: bytes | str) -> None:
    """Write `content` (text as UTF-8) to `path` atomically."""
    with atomic_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder beside `folder` that takes its place when the block succeeds.

    A link to a folder stays a link; its target is replaced.

    Raises:
        MobileMoEError: if the disk refuses, or a file stands at `folder`.
    """
    folder = folder.resolve()
    if folder.exists() and not folder.is_dir():
        raise MobileMoEError(
            f"cannot write folder {folder}: a file of that name is there",
            hint="give another path or move the file away",
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise _disk_error(folder, error) from error
    try:
        temporary.chmod(0o755)
        yield temporary
        _replace_folder(temporary, folder)
    except OSError as error:
        raise _disk_error(folder, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _replace_folder(temporary: Path, folder: Path) -> None:
    """Swap `temporary` in for `folder`; a rename cannot replace a folder that has content."""
    retired = folder.with_name(f"{temporary.name}.old")
    if folder.exists():
        folder.rename(retired)
    try:
        temporary.rename(folder)
    except OSError:
        if retired.exists():
            retired.rename(folder)
        raise
    shutil.rmtree(retired, ignore_errors=True)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _disk_error(path: Path, error: OSError) -> MobileMoEError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    reason = "the disk is full" if full else (error.strerror or str(error))
    hint = "free some space and run again" if full else "check the path and its permissions"
    return MobileMoEError(
        f"cannot write {path}: {reason}; what was there before is untouched", hint=hint
    )
