"""A short name for the bytes of a checkpoint, cheap enough for every start."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from mobilemoe.checkpoint.config_file import CONFIG_FILE
from mobilemoe.checkpoint.folder import Checkpoint
from mobilemoe.checkpoint.text_files import JSON_LIMIT, open_regular, read_text
from mobilemoe.errors import CheckpointError

DIGITS = 12
BLOCK_BYTES, BLOCKS = 4096, 64


def fingerprint(checkpoint: Checkpoint) -> str:
    """Return 12 hexadecimal digits that tell one checkpoint from another.

    They begin the SHA-256 of config.json and of each weights file's size and 64 blocks of 4 KiB,
    evenly spread from its first to its last byte (a small file counts in full). The headers
    alone would not do: they are the same for all models of one shape, while training changes
    weights everywhere. It is no protection against somebody who alters bytes between the blocks.

    Raises:
        CheckpointError: if a file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        digest.update(read_text(checkpoint.folder / CONFIG_FILE, JSON_LIMIT))
        for path in checkpoint.shards:
            for block in _blocks(path):
                digest.update(block)
    except OSError as error:
        raise CheckpointError(f"cannot read {checkpoint.folder}: {error}") from error
    return digest.hexdigest()[:DIGITS]


def _blocks(path: Path) -> Iterator[bytes]:
    descriptor = open_regular(path)
    try:
        size = os.fstat(descriptor).st_size
        yield size.to_bytes(8, "little")
        last = max(0, size - BLOCK_BYTES)
        small = size <= BLOCKS * BLOCK_BYTES
        spread = [i * last // (BLOCKS - 1) for i in range(BLOCKS)]
        starts = range(0, size, BLOCK_BYTES) if small else spread
        for start in starts:
            yield os.pread(descriptor, BLOCK_BYTES, start)
    finally:
        os.close(descriptor)
