"""Files that appear whole or not at all: temporary name, fsync, rename."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from mobilemoe.errors import MobileMoEError

AT_FDCWD, RENAME_EXCHANGE = -100, 2  # of Linux's renameat2


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
def atomic_folder(folder: Path, last: str = "") -> Iterator[Path]:
    """Yield an empty folder whose files take the place of `folder` when the block succeeds.

    A folder that is there and empty is filled, the file called `last` at the end: it may be the
    current folder or a mount point. One that has content is replaced as a whole. A link to a
    folder stays a link; its target is replaced.

    Raises:
        MobileMoEError: if the disk refuses, if a file stands at `folder`, or if it has content
            and cannot be replaced because it is in use (a mount point, the current folder).
    """
    folder = folder.resolve()
    filled = _is_empty(folder)
    _check_place(folder, filled)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        home = folder if filled else folder.parent
        temporary = Path(tempfile.mkdtemp(prefix=_prefix(folder), dir=home))
    except OSError as error:
        raise _disk_error(folder, error) from error
    try:
        temporary.chmod(0o755)
        yield temporary
        if filled:
            _move_into(temporary, folder, last)
        else:
            _replace_folder(temporary, folder)
    except OSError as error:
        raise _disk_error(folder, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def is_leftover(path: Path, folder: Path) -> bool:
    """Whether `path` is the temporary folder of a writer of `folder` that was killed."""
    return path.name.startswith(_prefix(folder)) and path.is_dir()


def _prefix(folder: Path) -> str:
    return f".{folder.name}.tmp-"


def _is_empty(folder: Path) -> bool:
    """Whether `folder` is there and holds nothing but what a killed writer left."""
    return folder.is_dir() and all(is_leftover(path, folder) for path in folder.iterdir())


def _check_place(folder: Path, filled: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise MobileMoEError(
            f"cannot write folder {folder}: a file of that name is there",
            hint="give another path or move the file away",
        )
    in_use = folder.is_dir() and (folder.is_mount() or Path.cwd().is_relative_to(folder))
    if in_use and not filled:
        raise MobileMoEError(
            f"cannot replace folder {folder}: it has content and is a mount point, or the current "
            "folder is in it",
            hint="give another path, or go to another folder first",
        )


def _move_into(temporary: Path, folder: Path, last: str) -> None:
    """Move the files of `temporary` up into the empty `folder`; take them back on any failure."""
    moved: list[Path] = []
    try:
        for path in sorted(temporary.iterdir(), key=lambda path: (path.name == last, path.name)):
            moved.append(path.rename(folder / path.name))
        _sync_folder(folder)
    except BaseException:
        for path in moved:
            path.unlink()
        raise


def _replace_folder(temporary: Path, folder: Path) -> None:
    """Swap `temporary` in for `folder`, whose old content is in `temporary` afterwards."""
    if not folder.exists():
        temporary.rename(folder)
    elif not _exchange(temporary, folder):
        _swap_by_renaming(temporary, folder)
    _sync_folder(folder.parent)


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two names in one step; False where the system cannot (it is Linux's own)."""
    try:
        renameat2 = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    names = os.fsencode(first), os.fsencode(second)
    done: int = renameat2(AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_EXCHANGE)
    return done == 0


def _swap_by_renaming(temporary: Path, folder: Path) -> None:
    """Do it in two steps; an interruption between them brings the old folder back."""
    retired = folder.with_name(f"{temporary.name}.old")
    try:
        folder.rename(retired)
        temporary.rename(folder)
    except BaseException:
        if retired.exists() and not folder.exists():
            retired.rename(folder)
        raise
    retired.rename(temporary)


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
