"""The header of a safetensors file: parsed from bytes, without a file and without trust.

8 bytes hold the little-endian length of a JSON object, the object follows, then the tensors.
A damaged or hostile header is refused before it costs memory: it may be about as long and have
about as many entries as the model's own tensors need.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from mobilemoe.checkpoint.layout import DTYPE_BYTES, StoredTensor
from mobilemoe.errors import CheckpointError

PREFIX_BYTES = 8
FORMAT_LIMIT = 100_000_000  # the container format's own cap
# The longest header: twice its entries (a name and this much), and metadata of this size. The
# native reader has the same numbers (native/safetensors.cc).
ENTRY_BYTES, METADATA_BYTES = 160, 1 << 20
COUNTED_ABOVE = 2 << 20  # bytes; shorter headers cost little to parse, whatever they hold
SPARE_ENTRIES = 1000
NUMPY_DTYPES: Mapping[str, type[np.generic]] = {
    "U8": np.uint8,
    "F16": np.float16,
    "BF16": np.uint16,
    "F32": np.float32,
}
HINT = "the file is damaged or incomplete; download or export it again"


@dataclass(frozen=True)
class Entry:
    """Where one tensor lies: dtype, shape and byte range from the start of the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


def encode_header(layout: Iterable[StoredTensor]) -> bytes:
    """Return the length prefix and JSON header, padded with spaces to a multiple of 8."""
    header: dict[str, Any] = {}
    offset = 0
    for tensor in layout:
        header[tensor.name] = {
            "dtype": tensor.dtypes[0],
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + tensor.nbytes],
        }
        offset += tensor.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(PREFIX_BYTES, "little") + text


def header_limit(layout: Iterable[StoredTensor]) -> int:
    """Return the longest header that a file with (part of) `layout` may have."""
    entries = sum(len(tensor.name) + ENTRY_BYTES for tensor in layout)
    return min(FORMAT_LIMIT, 2 * entries + METADATA_BYTES)


def header_length(prefix: bytes, file_size: int, limit: int, path: Path) -> int:
    """Return the length of the JSON header from the first 8 bytes of a file.

    Raises:
        CheckpointError: if it is longer than the file or than `limit`.
    """
    length = int.from_bytes(prefix, "little")
    if len(prefix) < PREFIX_BYTES or length > file_size - PREFIX_BYTES:
        raise CheckpointError(
            f"{path}: header says {length} bytes, the file has {file_size}", hint=HINT
        )
    if length > limit:
        raise CheckpointError(
            f"{path}: header says {length} bytes; allowed: {limit} for the tensors of its config",
            hint="it is damaged, belongs to another config, or has metadata of over a megabyte",
        )
    return length


def parse_header(text: bytes, file_size: int, tensors: int, path: Path) -> dict[str, Entry]:
    """Return the entries of a header whose tensors cover the rest of the file exactly.

    `tensors` is the number that the model has at most: a very long header with far more entries
    is not even parsed. Order is that of the header.

    Raises:
        CheckpointError: naming the tensor and what is wrong with it.
    """
    _check_amount(text, tensors, path)
    header = _parse_json(text, path)
    _check_metadata(header.pop("__metadata__", {}), path)
    base = PREFIX_BYTES + len(text)
    entries = {name: _entry(path, name, value, base) for name, value in header.items()}
    _check_cover(path, entries, base, file_size)
    return entries


def _check_amount(text: bytes, tensors: int, path: Path) -> None:
    """Count brackets and commas: what a parser would turn into objects, without parsing."""
    if len(text) <= COUNTED_ABOVE:
        return
    objects = 2 * tensors + SPARE_ENTRIES
    if text.count(b"{") > objects or text.count(b",") > 16 * objects:
        raise CheckpointError(
            f"{path}: header has {text.count(b'{')} objects and {text.count(b',')} commas; "
            f"the model has {tensors} tensors",
            hint=HINT,
        )


class _Doubled(dict[str, Any]):
    """An object in which a key stands twice: only the metadata, which nobody reads, may be one."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    return result if len(result) == len(pairs) else _Doubled(result)


def _parse_json(text: bytes, path: Path) -> dict[str, Any]:
    try:
        header = json.loads(
            text.decode("utf-8"),
            object_pairs_hook=_object,
            parse_float=_refuse_number,
            parse_constant=_refuse_number,
            parse_int=_count,
        )
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: header is not valid JSON: {error}", hint=HINT) from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{path}: header is not a JSON object", hint=HINT)
    if isinstance(header, _Doubled):
        raise CheckpointError(f"{path}: header is malformed: a key stands twice", hint=HINT)
    return header


def _count(digits: str) -> int:
    return int(digits) if digits.isdigit() else -1  # -0 is none either


def _refuse_number(text: str) -> object:
    """Stand for a number that is no count; every use of it is refused by its type."""
    return object()


def _check_metadata(metadata: Any, path: Path) -> None:
    texts = [*metadata, *metadata.values()] if isinstance(metadata, dict) else [None]
    if not all(isinstance(text, str) and _is_unicode(text) for text in texts):
        raise CheckpointError(
            f"{path}: __metadata__ is malformed; allowed: names with texts", hint=HINT
        )


def _is_unicode(text: str) -> bool:
    """Whether `text` holds no half of a surrogate pair, which JSON can write."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _entry(path: Path, name: str, value: Any, base: int) -> Entry:
    try:
        dtype, shape = value["dtype"], value["shape"]
        start, stop = value["data_offsets"]
        numbers = [*shape, start, stop]
        known = len(value) == 3 and isinstance(shape, list)
    except (TypeError, KeyError, ValueError):
        known = False
    if not known or isinstance(value, _Doubled):
        raise CheckpointError(
            f"{path}: header entry of {printable(name)!r} is malformed; "
            "needed: dtype, shape, data_offsets, each once",
            hint=HINT,
        )
    shown = printable(name)
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise CheckpointError(f"{path}: {shown} has a negative or non-integer size", hint=HINT)
    if dtype not in tuple(NUMPY_DTYPES):  # a tuple also takes what cannot be hashed
        allowed = ", ".join(NUMPY_DTYPES)
        raise CheckpointError(f"{path}: {shown} is {dtype!r}; allowed: {allowed}", hint=HINT)
    needed = prod(shape) * DTYPE_BYTES[dtype]
    if stop - start != needed:
        raise CheckpointError(
            f"{path}: {shown} has {stop - start} bytes, {dtype} {shape} needs {needed}", hint=HINT
        )
    return Entry(dtype, tuple(shape), base + start, base + stop)


def _check_cover(path: Path, entries: Mapping[str, Entry], base: int, size: int) -> None:
    """Refuse gaps, overlaps and a wrong end: the tensors must cover the file exactly."""
    position = base
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].stop)):
        if entry.start != position:
            raise CheckpointError(
                f"{path}: {printable(name)} starts at byte {entry.start}, expected {position}",
                hint=HINT,
            )
        position = entry.stop
    if position != size:
        raise CheckpointError(f"{path}: has {size} bytes, its header needs {position}", hint=HINT)


def printable(name: str) -> str:
    """Return `name` fit for a message: at most 120 characters, no control characters."""
    shown = "".join(c if c.isprintable() else "?" for c in name[:120])
    return f"{shown}..." if len(name) > 120 else shown
