"""Batches read ahead of the loop by a thread of their own, whatever step it asks for next."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from mobilemoe.data import Batch, Prefetcher

DEPTH = 4  # batches in waiting: enough to hide a slow disk, few enough to stay small


class ReadAhead:
    """A function of the step, like the one it wraps, that has usually read the answer already.

    A step that does not follow the last one (after going back) starts the reading anew. Used as
    a context manager, it ends its thread.
    """

    def __init__(self, batch: Callable[[int], Batch]) -> None:
        self._batch = batch
        self._reader: Prefetcher[Batch] | None = None
        self._next = -1

    def __call__(self, step: int) -> Batch:
        """Return `batch(step)`; whatever it raises is raised here."""
        if self._reader is None or step != self._next:
            self.close()
            self._reader = Prefetcher(self._batch, step, DEPTH, 1)
        self._next = step + 1
        try:
            return next(self._reader)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the thread."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def __enter__(self) -> ReadAhead:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
