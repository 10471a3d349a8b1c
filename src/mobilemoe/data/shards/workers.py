"""Worker processes that tokenise chunks; results come back in the order of the chunks."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import connection

from mobilemoe.data.shards.encode import Encoded, Encoder
from mobilemoe.data.sources import Place, Raw
from mobilemoe.errors import MobileMoEError
from mobilemoe.recipe import Source

AHEAD = 3  # chunks per worker that are waiting or done


@dataclass(frozen=True)
class Chunk:
    """Consecutive records, and the place of the record behind them (None: the end)."""

    records: Sequence[Raw]
    next: Place | None

    @property
    def start(self) -> Place:
        """The place of the first record."""
        return self.records[0].place


_encoder: Encoder | None = None


def encode_in_order(
    chunks: Iterable[Chunk], tokenizer_json: str, source: Source, workers: int
) -> Generator[tuple[Chunk, Encoded]]:
    """Yield each chunk with its encoding, in order; 0 workers: in this process.

    Raises:
        MobileMoEError: if a worker dies.
    """
    if workers == 0:
        encoder = Encoder(tokenizer_json, source)
        for chunk in chunks:
            yield chunk, encoder.encode(chunk.records)
        return
    pool = ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start,
        initargs=(tokenizer_json, source),
    )
    try:
        yield from _through(pool, iter(chunks), workers * AHEAD)
    except BrokenProcessPool as error:
        raise MobileMoEError(
            f"source {source.name}: a process that tokenises died",
            hint="was memory short? Use fewer workers. A script that starts workers needs "
            'if __name__ == "__main__"',
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _through(
    pool: ProcessPoolExecutor, chunks: Iterator[Chunk], ahead: int
) -> Iterator[tuple[Chunk, Encoded]]:
    waiting: deque[tuple[Chunk, Future[Encoded]]] = deque()
    for chunk in chunks:
        waiting.append((chunk, pool.submit(_encode, chunk.records)))
        if len(waiting) >= ahead:
            first, future = waiting.popleft()
            yield first, future.result()
    while waiting:
        first, future = waiting.popleft()
        yield first, future.result()


def _start(tokenizer_json: str, source: Source) -> None:
    """Prepare a worker: one thread each, and no longer life than the parent's."""
    global _encoder
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it and shuts down
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _encoder = Encoder(tokenizer_json, source)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)


def _encode(records: Sequence[Raw]) -> Encoded:
    assert _encoder is not None
    return _encoder.encode(records)
