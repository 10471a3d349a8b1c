"""A source becomes a folder of shards: the same bytes for any number of workers and any kill.

Records are cut into chunks by their number and size alone; workers tokenise chunks; this
process takes the results in order and writes shards. The index is written after every shard,
so a killed preparation goes on behind the last whole one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from itertools import takewhile
from pathlib import Path

from tokenizers import Tokenizer

from mobilemoe.data.chat import ChatFormat, largest_id
from mobilemoe.data.shards.filling import (
    CHUNK_BYTES,
    CHUNK_RECORDS,
    Filling,
    PrepareOptions,
    Progress,
)
from mobilemoe.data.shards.index import (
    INDEX_NAME,
    SIDES,
    Index,
    Shard,
    file_name,
    read_index,
    write_index,
)
from mobilemoe.data.shards.reader import ShardSet, check_sizes, open_shards
from mobilemoe.data.sources import source_identity
from mobilemoe.errors import MobileMoEError
from mobilemoe.recipe import Source

try:
    import fcntl
except ImportError:  # Windows: there, one process at a time is up to the user
    fcntl = None  # type: ignore[assignment]


def prepare_source(
    source: Source,
    tokenizer_json: str,
    folder: Path,
    max_tokens: int | None = None,
    workers: int = 2,
    progress: Progress | None = None,
    options: PrepareOptions | None = None,
) -> ShardSet:
    """Tokenise a source into `folder`, or go on where an earlier call stopped.

    The last sample taken is the one that brings the training side to `max_tokens`; None takes
    the whole source. Another `max_tokens` than before redoes the last shard only.
    `progress(label, training tokens, max_tokens or 0)` is called after every chunk.
    `workers` 0 tokenises in this process. A second process with the same folder waits.

    Raises:
        MobileMoEError: if the source cannot be read or has too many bad records, the tokenizer
            lacks a token, the folder holds something else, or the disk is full.
    """
    _check_counts(max_tokens, workers)
    options = options or PrepareOptions()
    planned = _empty_index(source, tokenizer_json, max_tokens, options)
    with _locked(folder):
        index = _kept(folder, planned)
        if not index.complete:
            filling = Filling(folder, index, source, options)
            index = filling.run(tokenizer_json, workers, progress)
        if not any(shard.train.documents + shard.heldout.documents for shard in index.shards):
            raise MobileMoEError(f"source {source.name}: {source.path} has no usable record")
    return open_shards(folder)


def _check_counts(max_tokens: int | None, workers: int) -> None:
    if max_tokens is not None and max_tokens < 1:
        raise MobileMoEError(f"max_tokens is {max_tokens}; allowed: 1 and more")
    if not 0 <= workers <= 1024:
        raise MobileMoEError(f"workers is {workers}; allowed: 0 to 1024")


def _empty_index(
    source: Source, tokenizer_json: str, max_tokens: int | None, options: PrepareOptions
) -> Index:
    try:
        tokenizer = Tokenizer.from_str(tokenizer_json)
    except Exception as error:  # the library raises bare Exception
        raise MobileMoEError(f"the tokenizer cannot be read: {error}") from error
    ChatFormat.of(tokenizer)
    largest = largest_id(tokenizer)
    key = {
        "source": source_identity(source),
        "tokenizer": sha256(tokenizer_json.encode()).hexdigest(),
        "shard_tokens": options.shard_tokens,
        "heldout_tokens": options.heldout_tokens,
        "chunk": [CHUNK_RECORDS, CHUNK_BYTES],
    }
    dtype = "<u2" if largest < 2**16 else "<u4"
    return Index(key, dtype, largest, source.is_conversations, max_tokens)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, so that of many ranks one prepares and the others find it done.

    The system frees it when the process ends, however that happens.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("wb")
    except OSError as error:
        raise MobileMoEError(f"cannot write to {folder}: {error.strerror}") from error
    with file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _kept(folder: Path, planned: Index) -> Index:
    """Return the index to go on from: the shards that this preparation would also have written."""
    if not (folder / INDEX_NAME).exists():
        _remove_others(folder, planned)
        return planned
    found = read_index(folder)
    _check_same(folder, found, planned)
    check_sizes(folder, found)
    if found.complete and found.max_tokens == planned.max_tokens:
        return found
    if found.exhausted and _fits(found.train_tokens, planned.max_tokens):
        index = replace(found, max_tokens=planned.max_tokens)
        write_index(folder, index)
        return index
    whole: list[Shard] = []
    for shard in takewhile(lambda shard: shard.full, found.shards):
        if not _fits(sum(s.train.tokens for s in [*whole, shard]), planned.max_tokens):
            break
        whole.append(shard)
    index = replace(planned, shards=tuple(whole))
    write_index(folder, index)
    _remove_others(folder, index)
    return index


def _fits(tokens: int, max_tokens: int | None) -> bool:
    return max_tokens is None or tokens < max_tokens


def _check_same(folder: Path, found: Index, planned: Index) -> None:
    for name, value in planned.key.items():
        if found.key.get(name) != value:
            raise MobileMoEError(
                f"{folder / INDEX_NAME}: these shards were made with another {name}"
                + _difference(found.key.get(name), value),
                hint=f"delete {folder} to prepare it again, or give another folder",
            )


def _difference(found: object, planned: object) -> str:
    if not (isinstance(found, dict) and isinstance(planned, dict)):
        return f": {found!r} instead of {planned!r}"
    changed = [name for name in planned if found.get(name) != planned[name]]
    return f": {', '.join(changed)} changed since"


def _remove_others(folder: Path, index: Index) -> None:
    """Remove shard files that the index does not name, and what killed writers left."""
    named = {
        file_name(side, shard.number, suffix)
        for shard in index.shards
        for side in SIDES
        for suffix in shard.part(side).files
    }
    for path in folder.iterdir():
        ours = path.name.startswith(("train-", "heldout-")) and path.name not in named
        if ours or (path.name.startswith(".") and path.name.endswith(".tmp")):
            path.unlink()
