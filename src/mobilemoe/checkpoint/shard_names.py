"""The names of weight shards: plain files beside their index, whatever the index says.

`model.safetensors.index.json` comes from outside and names the files to open or to fetch. Only
what a checkpoint writer makes is taken: everything else could leave the folder (`../x`, `/x`,
`C:x`), reach a device (`NUL.safetensors`), a stream (`a:b`) or a file of another kind.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from mobilemoe.errors import CheckpointError

INDEX_LIMIT = 16_000_000  # bytes; an index of the largest released shape has under 0.2 MB
NAME_LIMIT = 255  # bytes of a file name on the usual file systems

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*\.safetensors", re.ASCII)
# Windows opens these devices whatever the extension: NUL.safetensors is NUL.
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.ASCII | re.IGNORECASE)
_HINT = "an index may name only .safetensors files beside it; do not trust this checkpoint"
_AGAIN = "the index is damaged or incomplete; download or export it again"


def check_shard_name(name: object) -> str:
    """Return `name` if it is the plain name of a .safetensors file, without any folder.

    Allowed: ASCII letters, digits and `_ . + -`, the first one a letter, digit or `_`, at most
    255 bytes, ending in `.safetensors`, no device name of Windows.

    Raises:
        CheckpointError: with the name, for anything else.
    """
    if (
        isinstance(name, str)
        and len(name) <= NAME_LIMIT
        and _PLAIN_NAME.fullmatch(name)
        and not _DEVICES.fullmatch(name)
    ):
        return name
    shown = ascii(name)
    shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
    raise CheckpointError(f"the shard index names the file {shown}", hint=_HINT)


def read_shard_names(index: Path) -> tuple[str, ...]:
    """Return the distinct shard names of a `model.safetensors.index.json`, checked and sorted.

    Raises:
        CheckpointError: if the index cannot be read, is none, or names anything but plain files.
    """
    return tuple(sorted({check_shard_name(name) for name in _read_weight_map(index).values()}))


def _read_weight_map(index: Path) -> dict[str, Any]:
    try:
        with index.open("rb") as file:
            text = file.read(INDEX_LIMIT + 1)
    except OSError as error:
        raise CheckpointError(f"cannot read {index}: {error.strerror}", hint=_AGAIN) from error
    if len(text) > INDEX_LIMIT:
        raise CheckpointError(f"{index}: has more than {INDEX_LIMIT} bytes", hint=_HINT)
    try:
        weight_map = json.loads(text)["weight_map"]
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise CheckpointError(f"{index}: is no shard index: {error!r:.100}", hint=_AGAIN) from error
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index}: weight_map is empty or no JSON object", hint=_AGAIN)
    return weight_map
