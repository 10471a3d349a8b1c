"""From encoded chunks, in order, to one shard's files."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilemoe.atomic import atomic_file
from mobilemoe.data.documents import HELD_OUT_SHARE
from mobilemoe.data.shards.encode import Encoded
from mobilemoe.data.shards.index import SIDES, FileInfo, Part, Shard, file_name
from mobilemoe.data.sources import BadRecord, Place
from mobilemoe.data.sources.records import SHOWN_BAD

CRC_BLOCK = 2**20
TRAIN, HELDOUT, REPEAT = range(3)

Samples = NDArray[np.int64]


@dataclass
class HeldOut:
    """Which units are held out so far, and how many tokens they have.

    Units with a small hash are held out until there are `limit` tokens of them; after that they
    are trained on, but a unit that is held out already never is.
    """

    limit: int
    tokens: int = 0
    points: set[int] = field(default_factory=set)

    def sides(self, encoded: Encoded) -> Samples:
        """Return the side of each sample: TRAIN, HELDOUT or REPEAT (left out)."""
        sides = np.full(len(encoded.lengths), TRAIN)
        for i in np.flatnonzero(encoded.points < np.uint64(HELD_OUT_SHARE * 2**64)):
            point = int(encoded.points[i])
            if point in self.points:
                sides[i] = REPEAT
            elif self.tokens < self.limit:
                sides[i] = HELDOUT
                self.points.add(point)
                self.tokens += int(encoded.lengths[i])
        return sides


@dataclass
class _Side:
    """One side of a shard while it grows."""

    tokens: list[NDArray[np.int64]] = field(default_factory=list)
    lengths: list[Samples] = field(default_factory=list)
    spans: list[NDArray[np.int64]] = field(default_factory=list)
    points: list[NDArray[np.uint64]] = field(default_factory=list)
    size: int = 0

    def add(self, encoded: Encoded, chosen: NDArray[np.bool_], dtype: str) -> None:
        """Append the chosen samples of a chunk."""
        starts = np.cumsum(encoded.lengths) - encoded.lengths
        kept = np.where(chosen, encoded.lengths, 0)
        moved = self.size + np.cumsum(kept) - kept - starts  # where a sample's tokens go
        owner = np.searchsorted(starts, encoded.spans[:, 0], side="right") - 1
        learnt = encoded.spans[chosen[owner]] + moved[owner[chosen[owner]], None]
        self.tokens.append(encoded.tokens[np.repeat(chosen, encoded.lengths)].astype(dtype))
        self.lengths.append(encoded.lengths[chosen])
        self.spans.append(learnt)
        self.points.append(encoded.points[chosen])
        self.size += int(kept.sum())


class ShardBuilder:
    """Collects chunks until the shard is closed.

    `room` is how many training tokens the source may still give; the sample that fills it is
    the last one taken.
    """

    def __init__(self, number: int, start: Place, dtype: str, conversations: bool) -> None:
        self._number = number
        self._start = start
        self._dtype = dtype
        self._conversations = conversations
        self._sides = {side: _Side() for side in SIDES}
        self._records = self._repeats = self._repeated_tokens = 0
        self._bad: dict[str, int] = {}
        self._shown: list[BadRecord] = []

    @property
    def records(self) -> int:
        """Records taken, bad ones included."""
        return self._records

    @property
    def bad(self) -> int:
        """Bad records."""
        return sum(self._bad.values())

    @property
    def first_bad(self) -> BadRecord | None:
        """The first bad record."""
        return self._shown[0] if self._shown else None

    @property
    def train_tokens(self) -> int:
        """Tokens of the training side."""
        return self._sides["train"].size

    @property
    def tokens(self) -> int:
        """Tokens of both sides."""
        return sum(side.size for side in self._sides.values())

    def add(self, encoded: Encoded, heldout: HeldOut, room: int | None) -> bool:
        """Take a chunk; return whether it filled `room`, so that the rest of it was left."""
        sides = heldout.sides(encoded)
        taken, records = np.ones(len(sides), np.bool_), encoded.records
        reached = np.cumsum(np.where(sides == TRAIN, encoded.lengths, 0))
        filled = False
        if room is not None and len(reached) and int(reached[-1]) >= room:
            filled = True
            last = int(np.searchsorted(reached, room))
            taken[last + 1 :] = False
            records = int(encoded.places[last]) + 1
        for number, side in enumerate(SIDES):
            self._sides[side].add(encoded, taken & (sides == number), self._dtype)
        repeats = taken & (sides == REPEAT)
        self._repeats += int(repeats.sum())
        self._repeated_tokens += int(encoded.lengths[repeats].sum())
        self._records += records
        self._note(bad for number, bad in encoded.bad if number < records)
        return filled

    def _note(self, bad: Iterable[BadRecord]) -> None:
        for record in bad:
            self._bad[record.reason] = self._bad.get(record.reason, 0) + 1
            if len(self._shown) < SHOWN_BAD:
                self._shown.append(record)

    def close(self, folder: Path, full: bool, following: Place | None) -> Shard:
        """Write the files, each atomically, and return the shard's entry of the index."""
        train, heldout = (self._write(folder, side) for side in SIDES)
        return Shard(
            number=self._number,
            full=full,
            start=self._start,
            next=following,
            records=self._records,
            repeats=self._repeats,
            repeated_tokens=self._repeated_tokens,
            bad=dict(sorted(self._bad.items())),
            bad_shown=tuple(self._shown),
            train=train,
            heldout=heldout,
        )

    def _write(self, folder: Path, name: str) -> Part:
        side = self._sides[name]
        lengths = np.concatenate([np.empty(0, np.int64), *side.lengths])
        if not len(lengths):
            return Part(0, 0, 0, {})
        spans = np.concatenate(side.spans)
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype("<i8")
        arrays: dict[str, list[NDArray[Any]]] = {"tokens": side.tokens, "offsets": [offsets]}
        learnt = side.size
        if self._conversations:
            arrays["spans"] = [spans.astype("<i8")]
            learnt = int((spans[:, 1] - spans[:, 0]).sum())
        if name == "heldout":
            arrays["points"] = [np.concatenate(side.points).astype("<u8")]
        files = {
            suffix: write_file(folder / file_name(name, self._number, suffix), parts)
            for suffix, parts in arrays.items()
        }
        return Part(len(lengths), side.size, learnt, files)


def write_file(path: Path, parts: Iterable[NDArray[Any]]) -> FileInfo:
    """Write arrays one after the other, atomically; return size and hashes."""
    hashes = Hashes()
    with atomic_file(path) as file:
        for part in parts:
            data = np.ascontiguousarray(part).tobytes()
            file.write(data)
            hashes.update(data)
    return hashes.info()


class Hashes:
    """SHA-256 of a file, and CRC-32 of each of its blocks."""

    def __init__(self) -> None:
        self._digest = sha256()
        self._size = 0
        self._crc: list[int] = []

    def update(self, data: bytes) -> None:
        """Take the next bytes, in pieces that end where blocks do."""
        self._digest.update(data)
        while data:
            used = self._size % CRC_BLOCK
            piece, data = data[: CRC_BLOCK - used], data[CRC_BLOCK - used :]
            if used == 0:
                self._crc.append(0)
            self._crc[-1] = zlib.crc32(piece, self._crc[-1])
            self._size += len(piece)

    def info(self) -> FileInfo:
        """Return what was found."""
        return FileInfo(self._size, self._digest.hexdigest(), tuple(self._crc))
