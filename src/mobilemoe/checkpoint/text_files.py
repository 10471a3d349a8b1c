"""Opening what a checkpoint folder holds, and its small JSON files, without trust."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from mobilemoe.errors import CheckpointError

JSON_LIMIT = 1_000_000  # bytes: ten times any config or index, small enough to parse anywhere


def open_regular(path: Path) -> int:
    """Return a descriptor of the regular file `path` for reading.

    Raises:
        OSError: if it cannot be opened or is a folder, a pipe or a device.
    """
    # Without O_NONBLOCK a named pipe in place of the file would wait for a writer for ever.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{path.name} is not a regular file")
    return descriptor


def read_text(path: Path, limit: int) -> bytes:
    """Return the content of the regular file `path`.

    Raises:
        FileNotFoundError: if there is none.
        CheckpointError: if it is larger than `limit` bytes.
        OSError: if it cannot be read.
    """
    with os.fdopen(open_regular(path), "rb") as file:
        text = file.read(limit + 1)
    if len(text) > limit:
        raise CheckpointError(
            f"{path}: is larger than {limit} bytes", hint="is this the checkpoint's own file?"
        )
    return text


def read_json_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in `path`.

    Raises:
        CheckpointError: if it is missing, too large, or not a JSON object.
    """
    try:
        values = json.loads(
            read_text(path, JSON_LIMIT).decode("utf-8"), object_pairs_hook=no_duplicates
        )
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path.parent} has no {path.name}", hint="is this a MobileMoE checkpoint folder?"
        ) from error
    except CheckpointError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: is not a JSON object")
    return values


def no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Turn one JSON object's pairs into a dict; an `object_pairs_hook`.

    Raises:
        ValueError: if a key stands twice or is no text (half a surrogate pair).
    """
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key stands twice")
    for key in result:
        key.encode()  # UnicodeEncodeError is a ValueError
    return result
