"""Chunks in, shards out: the loop of a preparation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mobilemoe.data.shards.encode import Encoded
from mobilemoe.data.shards.index import Index, Shard, file_name, write_index
from mobilemoe.data.shards.workers import Chunk, encode_in_order
from mobilemoe.data.shards.writer import HeldOut, ShardBuilder
from mobilemoe.data.sources import BadRecord, Raw, read_raw
from mobilemoe.errors import MobileMoEError
from mobilemoe.recipe import Source

CHUNK_RECORDS = 512
CHUNK_BYTES = 2**20
FEW_RECORDS = 1000  # below this, the share of bad records is judged at the end only

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class PrepareOptions:
    """How a source is cut up. All but `max_bad_share` decide the content of the shards.

    `shard_tokens`: a shard is closed at the first chunk that brings it there.
    `heldout_tokens`: about how many tokens are held out at most, of 5 % of the source.
    `max_bad_share`: a larger share of bad records stops the preparation.

    Raises:
        MobileMoEError: if a value is out of range.
    """

    shard_tokens: int = 2**25
    heldout_tokens: int = 2**20
    max_bad_share: float = 0.01

    def __post_init__(self) -> None:
        for field, low in (("shard_tokens", 1), ("heldout_tokens", 0)):
            if getattr(self, field) < low:
                raise MobileMoEError(f"{field} is {getattr(self, field)}; allowed: {low} and more")
        if not 0 <= self.max_bad_share <= 1:
            raise MobileMoEError(f"max_bad_share is {self.max_bad_share}; allowed: 0 to 1")


class Filling:
    """Writes the shards that are missing from `index`."""

    def __init__(self, folder: Path, index: Index, source: Source, options: PrepareOptions) -> None:
        self._folder = folder
        self._index = index
        self._source = source
        self._options = options
        self._heldout = _held_out(folder, index.shards, options.heldout_tokens)
        self._builder: ShardBuilder | None = None

    @property
    def train_tokens(self) -> int:
        """Tokens of the training side so far."""
        own = self._builder.train_tokens if self._builder else 0
        return self._index.train_tokens + own

    def run(self, tokenizer_json: str, workers: int, progress: Progress | None) -> Index:
        """Go on until the source or `max_tokens` is reached; return the complete index.

        Raises:
            MobileMoEError: as `prepare_source`.
        """
        encoded = encode_in_order(self._chunks(), tokenizer_json, self._source, workers)
        try:
            for chunk, result in encoded:
                filled = self._take(chunk, result)
                if progress is not None:
                    label = f"tokenise {self._source.name}"
                    progress(label, self.train_tokens, self._index.max_tokens or 0)
                if filled:
                    return self._finish(exhausted=False)
        finally:
            encoded.close()
        return self._finish(exhausted=True)

    def _chunks(self) -> Iterator[Chunk]:
        last = self._index.shards[-1] if self._index.shards else None
        if last is None or last.next is not None:
            yield from cut(read_raw(self._source, last.next if last else None))

    def _take(self, chunk: Chunk, encoded: Encoded) -> bool:
        """Add a chunk to the shard; return whether `max_tokens` are reached."""
        if self._builder is None:
            number = len(self._index.shards)
            dtype, talks = self._index.dtype, self._index.conversations
            self._builder = ShardBuilder(number, chunk.start, dtype, talks)
        limit = self._index.max_tokens
        room = None if limit is None else limit - self.train_tokens
        filled = self._builder.add(encoded, self._heldout, room)
        self._check_bad(few=FEW_RECORDS)
        if not filled and self._builder.tokens >= self._options.shard_tokens:
            self._close(chunk)
        return filled

    def _close(self, last: Chunk | None) -> None:
        """End the shard: full with chunk `last`, or None because nothing is to follow."""
        assert self._builder is not None
        shard = self._builder.close(self._folder, last is not None, last.next if last else None)
        self._builder = None
        self._index = self._index.with_shard(shard)
        if last is not None:
            write_index(self._folder, self._index)

    def _finish(self, exhausted: bool) -> Index:
        self._check_bad(few=0)
        if self._builder is not None:
            self._close(None)
        self._index = replace(self._index, exhausted=exhausted, complete=True)
        write_index(self._folder, self._index)
        return self._index

    def _check_bad(self, few: int) -> None:
        own = self._builder
        records = self._index.records + (own.records if own else 0)
        bad = sum(self._index.bad.values()) + (own.bad if own else 0)
        if records > few and bad > self._options.max_bad_share * records:
            share = self._options.max_bad_share
            raise MobileMoEError(
                f"source {self._source.name}: {bad} of {records} records are bad; allowed: "
                f"{share:.2%}; the first: {self._first_bad()}",
                hint="fix or remove them, and check the source's fields",
            )

    def _first_bad(self) -> BadRecord | None:
        shown = [bad for shard in self._index.shards for bad in shard.bad_shown]
        return shown[0] if shown else self._builder.first_bad if self._builder else None


def cut(records: Iterable[Raw]) -> Iterator[Chunk]:
    """Yield chunks of at most `CHUNK_RECORDS` records, closed after `CHUNK_BYTES`."""
    chunk: list[Raw] = []
    size = 0
    for record in records:
        if len(chunk) == CHUNK_RECORDS or size >= CHUNK_BYTES:
            yield Chunk(chunk, record.place)
            chunk, size = [], 0
        chunk.append(record)
        size += 0 if isinstance(record, BadRecord) else payload_bytes(record.payload)
    if chunk:
        yield Chunk(chunk, None)


def payload_bytes(payload: object) -> int:
    """Return about how many bytes a record holds: of nested values, the texts."""
    if isinstance(payload, str | bytes):
        return len(payload)
    if isinstance(payload, dict):
        return sum(map(payload_bytes, payload.values()))
    return sum(map(payload_bytes, payload)) if isinstance(payload, list) else 0


def _held_out(folder: Path, shards: Iterable[Shard], limit: int) -> HeldOut:
    """Return what is held out so far; the hashes are in the shards' files."""
    held = HeldOut(limit)
    for shard in shards:
        held.tokens += shard.heldout.tokens
        if shard.heldout.documents:
            points = np.fromfile(folder / file_name("heldout", shard.number, "points"), "<u8")
            held.points.update(map(int, points))
    return held
