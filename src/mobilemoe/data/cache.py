"""One file that holds a built data set, trusted only if its key and its hash agree.

The key covers the arguments, the Python version, the sources' names and sizes, and the code
of this folder: whatever could change the data makes the cache stale. The hash covers the
arrays and the description, so a damaged file is noticed.
"""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import numpy as np
import tokenizers
from safetensors import SafetensorError
from safetensors.numpy import load, save

from mobilemoe.atomic import atomic_write
from mobilemoe.data.stdlib import module_paths, stdlib_folder
from mobilemoe.data.tokens import ConversationSet, TokenArray

FILE_NAME = "corpus.safetensors"

Stream = TokenArray | ConversationSet
_PARTS = ("tokens", "offsets", "answers")


def cache_key(arguments: Mapping[str, object]) -> str:
    """Return the hash of everything that decides the content."""
    digest = sha256(json.dumps(arguments, sort_keys=True).encode())
    digest.update(f"{sys.version} {tokenizers.__version__}".encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    for path in [*module_paths(), stdlib_folder() / "pydoc_data" / "topics.py"]:
        size = path.stat().st_size if path.is_file() else -1
        digest.update(f"{path.name} {size}\n".encode())
    return digest.hexdigest()


def write_cache(
    folder: Path, key: str, streams: Mapping[str, Stream], description: Mapping[str, object]
) -> Path:
    """Write the cache file atomically and return its path."""
    arrays = _to_arrays(streams)
    text = json.dumps(description, sort_keys=True)
    metadata = {"key": key, "description": text, "sha256": _content_hash(arrays, text)}
    path = folder / FILE_NAME
    atomic_write(path, save(arrays, metadata))
    return path


def read_cache(folder: Path, key: str) -> tuple[dict[str, Stream], dict[str, object]] | None:
    """Return streams and description, or None if the file is absent, stale or damaged."""
    path = folder / FILE_NAME
    if not path.is_file():
        return None
    data = path.read_bytes()
    try:
        arrays = load(data)
        metadata = _metadata(data)
        text = metadata["description"]
        if metadata["key"] != key or metadata["sha256"] != _content_hash(arrays, text):
            return None
        return _from_arrays(arrays), json.loads(text)
    except (SafetensorError, KeyError, ValueError):
        return None


def _metadata(data: bytes) -> dict[str, str]:
    """Return the text part of a safetensors file."""
    (length,) = struct.unpack("<Q", data[:8])
    metadata = json.loads(data[8 : 8 + length])["__metadata__"]
    assert isinstance(metadata, dict)
    return metadata


def _content_hash(arrays: Mapping[str, np.ndarray], text: str) -> str:
    digest = sha256(text.encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()


def _to_arrays(streams: Mapping[str, Stream]) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    for name, stream in streams.items():
        if isinstance(stream, ConversationSet):
            arrays |= {f"{name}/{part}": getattr(stream, part) for part in _PARTS}
        else:
            arrays[name] = stream
    return arrays


def _from_arrays(arrays: Mapping[str, np.ndarray]) -> dict[str, Stream]:
    streams: dict[str, Stream] = {}
    for name in sorted(arrays):
        stem, _, part = name.partition("/")
        if not part:
            streams[name] = arrays[name]
        elif part == _PARTS[0]:
            streams[stem] = ConversationSet(*(arrays[f"{stem}/{p}"] for p in _PARTS))
    return streams
