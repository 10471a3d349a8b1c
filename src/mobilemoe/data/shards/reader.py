"""Prepared shards, opened: their streams, their accounts, and whether they are whole."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from mobilemoe.data.shards.index import (
    INDEX_NAME,
    SIDES,
    FileInfo,
    Index,
    file_name,
    read_index,
)
from mobilemoe.data.shards.views import ShardConversations, ShardTokens, check_size
from mobilemoe.data.shards.writer import CRC_BLOCK
from mobilemoe.data.sources import BadRecord
from mobilemoe.data.sources.records import SHOWN_BAD
from mobilemoe.errors import MobileMoEError


@dataclass(frozen=True)
class ShardSet:
    """One prepared source."""

    folder: Path
    index: Index

    def stream(self, side: str) -> ShardTokens | ShardConversations:
        """Return the tokens or conversations of "train" or "heldout"; there may be none."""
        kind = ShardConversations if self.index.conversations else ShardTokens
        return kind(self.folder, side, self.index)

    @property
    def bad_shown(self) -> tuple[BadRecord, ...]:
        """The first bad records, in order."""
        shown = [bad for shard in self.index.shards for bad in shard.bad_shown]
        return tuple(shown[:SHOWN_BAD])

    @property
    def sha256(self) -> str:
        """The hash of every file's hash: equal bytes, equal value."""
        lines = [
            f"{path.name} {info.sha256}" for path, info in shard_files(self.folder, self.index)
        ]
        return sha256("\n".join(lines).encode()).hexdigest()

    def verify(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Compare every file with its hash; `progress(bytes read, all bytes)`.

        Raises:
            MobileMoEError: naming the file and the first block that differs.
        """
        files = list(shard_files(self.folder, self.index))
        total, done = sum(info.bytes for _, info in files), 0
        for path, info in files:
            check_size(path, info)
            _check_blocks(path, info)
            done += info.bytes
            if progress is not None:
                progress(done, total)


def open_shards(
    folder: Path, tokenizer_sha256: str | None = None, verify: bool = False
) -> ShardSet:
    """Open a prepared folder; sizes are always checked, hashes only if `verify`.

    Raises:
        MobileMoEError: if it was not prepared, not to the end, or with a tokenizer of another
            hash, or if a file is damaged.
    """
    index = read_index(folder)
    path = folder / INDEX_NAME
    if not index.complete:
        raise MobileMoEError(
            f"{path}: the preparation was interrupted after {len(index.shards)} shards",
            hint="run it again: it goes on from there",
        )
    if tokenizer_sha256 not in (None, index.key["tokenizer"]):
        raise MobileMoEError(
            f"{path}: made with tokenizer {index.key['tokenizer'][:12]}, not "
            f"{str(tokenizer_sha256)[:12]}",
            hint="prepare the source again with this tokenizer, in another folder",
        )
    check_sizes(folder, index)
    shards = ShardSet(folder, index)
    if verify:
        shards.verify()
    return shards


def check_sizes(folder: Path, index: Index) -> None:
    """Refuse a folder with a missing or truncated file.

    Raises:
        MobileMoEError: naming the file and where it ends.
    """
    for path, info in shard_files(folder, index):
        check_size(path, info)


def shard_files(folder: Path, index: Index) -> Iterator[tuple[Path, FileInfo]]:
    """Yield every file of the index with its size and hashes, in order."""
    for shard in index.shards:
        for side in SIDES:
            for suffix, info in sorted(shard.part(side).files.items()):
                yield folder / file_name(side, shard.number, suffix), info


def _check_blocks(path: Path, info: FileInfo) -> None:
    digest = sha256()
    with path.open("rb") as file:
        for number, crc in enumerate(info.crc32):
            block = file.read(CRC_BLOCK)
            digest.update(block)
            if zlib.crc32(block) != crc:
                raise _differs(path, number * CRC_BLOCK, f"within {len(block)} bytes")
    if digest.hexdigest() != info.sha256:
        raise _differs(path, 0, "somewhere")


def _differs(path: Path, offset: int, where: str) -> MobileMoEError:
    return MobileMoEError(
        f"{path}: damaged at byte {offset} ({where}): not the bytes that were written",
        hint="delete the folder and prepare it again",
    )
