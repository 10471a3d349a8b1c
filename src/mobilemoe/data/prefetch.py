"""Batches made ahead of time by threads; the same batches as without them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, TypeVar

from mobilemoe.errors import MobileMoEError

T = TypeVar("T")


class Prefetcher(Generic[T]):
    """Yields `batch(start_step)`, `batch(start_step + 1)`, ... in order.

    At most `depth` batches are ready or being made by `workers` threads, so `batch` must be a
    pure function that any thread may call. An exception in `batch` is raised where its batch
    would have come, and ends the iteration. Use it in a `with` block, or call `close`.

    Raises:
        MobileMoEError: if a number is out of range.
    """

    def __init__(
        self,
        batch: Callable[[int], T],
        start_step: int = 0,
        depth: int = 4,
        workers: int = 1,
        stop_step: int | None = None,
    ) -> None:
        for field, value, low in (
            ("start_step", start_step, 0),
            ("depth", depth, 1),
            ("workers", workers, 1),
        ):
            if value < low:
                raise MobileMoEError(f"{field} is {value}; allowed: {low} and more")
        self._batch = batch
        self._step = start_step  # the next to be asked for
        self._stop = stop_step
        self._depth = depth
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="prefetch")
        self._waiting: deque[Future[T]] = deque()
        self._closed = False

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        """Return the next batch."""
        self._ask()
        if not self._waiting:
            self.close()
            raise StopIteration
        future = self._waiting.popleft()
        self._ask()
        try:
            return future.result()
        except BaseException:
            self.close()
            raise

    def _ask(self) -> None:
        while len(self._waiting) < self._depth and not self._closed:
            if self._stop is not None and self._step >= self._stop:
                return
            self._waiting.append(self._pool.submit(self._batch, self._step))
            self._step += 1

    def close(self) -> None:
        """Drop what was made ahead and end the threads; may be called twice."""
        self._closed = True
        self._waiting.clear()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Prefetcher[T]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
