"""A short name for the content of a checkpoint, cheap enough to take at every start."""

from __future__ import annotations

import hashlib

from mobilemoe.checkpoint.config_file import CONFIG_FILE
from mobilemoe.checkpoint.folder import Checkpoint
from mobilemoe.errors import CheckpointError

SAMPLE_BYTES = 1 << 16
SAMPLES = 16
DIGITS = 16


def fingerprint(checkpoint: Checkpoint) -> str:
    """Return 16 hexadecimal digits: of config.json, and of size and samples of each weight file.

    The first and the last bytes of a file are among the samples. Equal content gives equal
    digits wherever it lies; weights that differ between the samples only are not told apart.

    Raises:
        CheckpointError: if a file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        digest.update((checkpoint.folder / CONFIG_FILE).read_bytes())
        for path in checkpoint.shards:
            size = path.stat().st_size
            digest.update(size.to_bytes(8, "little"))
            with path.open("rb") as file:
                for index in range(SAMPLES):
                    file.seek(max(0, size - SAMPLE_BYTES) * index // (SAMPLES - 1))
                    digest.update(file.read(SAMPLE_BYTES))
    except OSError as error:
        raise CheckpointError(
            f"cannot read {checkpoint.folder}: {error.strerror or error}",
            hint="is the download complete?",
        ) from error
    return digest.hexdigest()[:DIGITS]
