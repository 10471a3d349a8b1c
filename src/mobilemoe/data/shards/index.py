"""What a folder of shards holds, as one JSON document that notices its own damage.

    {"sha256": hash of the canonical content, "content": {...}}

Token files are raw little-endian integers; `offsets` and `spans` are int64, `points` uint64.
Every file has its size, its SHA-256, and a CRC-32 per block, which tells where damage is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from mobilemoe.atomic import atomic_write
from mobilemoe.data.sources import BadRecord, Place
from mobilemoe.errors import MobileMoEError

INDEX_NAME = "index.json"
FORMAT = "mobilemoe-shards-1"
SIDES = ("train", "heldout")


@dataclass(frozen=True)
class FileInfo:
    """Size and hashes of one file; `crc32` has an entry per `CRC_BLOCK` bytes."""

    bytes: int
    sha256: str
    crc32: tuple[int, ...]


@dataclass(frozen=True)
class Part:
    """One side of one shard. `learnt` tokens are those that are targets; `files` by suffix."""

    documents: int
    tokens: int
    learnt: int
    files: Mapping[str, FileInfo]


@dataclass(frozen=True)
class Shard:
    """One shard: the records from `start` up to, not including, `next`.

    `full` says that it was closed because of its size; only then do more records follow, and
    `next` is their place, or None if there are none. `repeats` are samples left out because
    their unit is held out already. `bad` counts skipped records by reason;
    `bad_shown` lists the first of them.
    """

    number: int
    full: bool
    start: Place
    next: Place | None
    records: int
    repeats: int
    repeated_tokens: int
    bad: Mapping[str, int]
    bad_shown: tuple[BadRecord, ...]
    train: Part
    heldout: Part

    def part(self, side: str) -> Part:
        """Return one side."""
        return self.train if side == "train" else self.heldout


@dataclass(frozen=True)
class Index:
    """The whole folder. `key` is everything but `max_tokens` that decides the content.

    `complete` says that the source ran out (`exhausted`) or `max_tokens` were reached.
    """

    key: Mapping[str, Any]
    dtype: str
    largest_id: int
    conversations: bool
    max_tokens: int | None = None
    exhausted: bool = False
    complete: bool = False
    shards: tuple[Shard, ...] = ()

    @property
    def train_tokens(self) -> int:
        """Tokens of the training side."""
        return sum(shard.train.tokens for shard in self.shards)

    @property
    def records(self) -> int:
        """Records read, bad ones included."""
        return sum(shard.records for shard in self.shards)

    @property
    def bad(self) -> dict[str, int]:
        """How many records were skipped, by reason."""
        counts: dict[str, int] = {}
        for shard in self.shards:
            for reason, count in shard.bad.items():
                counts[reason] = counts.get(reason, 0) + count
        return counts

    def with_shard(self, shard: Shard) -> Index:
        """Return the index with one more shard."""
        return replace(self, shards=(*self.shards, shard))


def file_name(side: str, number: int, suffix: str) -> str:
    """Return the name of one file of a shard."""
    return f"{side}-{number:05d}.{suffix}"


def write_index(folder: Path, index: Index) -> None:
    """Write the index atomically."""
    content = asdict(index) | {"format": FORMAT}
    atomic_write(folder / INDEX_NAME, json.dumps({"sha256": _hash(content), "content": content}))


def read_index(folder: Path) -> Index:
    """Read the index of a folder.

    Raises:
        MobileMoEError: if there is none, or it is damaged or of another format.
    """
    path = folder / INDEX_NAME
    try:
        data = path.read_bytes()
    except OSError as error:
        raise MobileMoEError(
            f"{folder} has no shards: {error.strerror} ({INDEX_NAME})", hint="prepare it first"
        ) from error
    try:
        document = json.loads(data.decode())
        content = document["content"]
        damaged = document["sha256"] != _hash(content)
    except (ValueError, KeyError, TypeError) as error:
        offset = getattr(error, "pos", getattr(error, "start", 0))
        raise _damaged(path, offset, str(error)) from error
    if damaged:
        raise _damaged(path, 0, "its hash does not fit its content")
    if content.get("format") != FORMAT:
        raise MobileMoEError(f"{path}: format is {content.get('format')!r}; allowed: {FORMAT!r}")
    return _index(content)


def _damaged(path: Path, offset: int, why: str) -> MobileMoEError:
    return MobileMoEError(
        f"{path}: damaged at byte {offset}: {why}", hint="delete the folder and prepare it again"
    )


def _hash(content: object) -> str:
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _index(content: dict[str, Any]) -> Index:
    fields = {name: value for name, value in content.items() if name != "format"}
    return Index(**fields | {"shards": tuple(_shard(shard) for shard in content["shards"])})


def _shard(fields: dict[str, Any]) -> Shard:
    following = fields["next"]
    shown = tuple(BadRecord(**b | {"place": Place(**b["place"])}) for b in fields["bad_shown"])
    return Shard(
        **fields
        | {
            "start": Place(**fields["start"]),
            "next": Place(**following) if following else None,
            "bad_shown": shown,
            "train": _part(fields["train"]),
            "heldout": _part(fields["heldout"]),
        }
    )


def _part(fields: dict[str, Any]) -> Part:
    files = {
        suffix: FileInfo(**info | {"crc32": tuple(info["crc32"])})
        for suffix, info in fields["files"].items()
    }
    return Part(**fields | {"files": files})
