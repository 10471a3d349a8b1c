"""The names of weight shards: plain files beside their index, whatever the index says.

`model.safetensors.index.json` comes from outside and names the files to open or to fetch. Only
what a checkpoint writer makes is taken: everything else could leave the folder (`../x`, `/x`,
`C:x`), reach a device (`NUL.safetensors`), a stream (`a:b`) or a file of another kind.
"""

from __future__ import annotations

import re

from mobilemoe.errors import CheckpointError

NAME_LIMIT = 255  # bytes of a file name on the usual file systems

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*\.safetensors", re.ASCII)
# Windows opens these devices whatever the extension: NUL.safetensors is NUL.
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.ASCII | re.IGNORECASE)
_HINT = "an index may name only .safetensors files beside it; do not trust this checkpoint"


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
