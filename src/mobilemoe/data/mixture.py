"""Training batches as a pure function of (seed, step), so that resuming is exact.

B batch, T context. Rows of all batches form one endless sequence; row r belongs to a domain
by a fixed schedule of `PERIOD` rows that repeats, and to that domain's n-th row, which a
permutation per epoch turns into a window. Nothing depends on what was asked before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mobilemoe.data.schedule import Schedule
from mobilemoe.data.shuffle import Order, shuffled
from mobilemoe.data.tokenizer import END_OF_TEXT
from mobilemoe.data.windows import (
    Conversations,
    Count,
    Ids,
    PackedConversations,
    StreamWindows,
    Tokens,
    Windows,
)
from mobilemoe.errors import MobileMoEError

Stream = Tokens | Conversations


@dataclass(frozen=True)
class Batch:
    """`ids_BT` and `targets_BT` (int64; -100 is ignored), and the domain of each row.

    A rank's part of a batch has fewer rows than B.
    """

    ids_BT: Ids
    targets_BT: Ids
    domains: tuple[str, ...]


class Mixture:
    """Weighted rows of several token streams and conversation sets.

    Args:
        streams: per name a token stream or a conversation set.
        weights: share of rows per name; they need not add up to one. A name left out or
            of weight 0 is not drawn.
        context: T, tokens per row.
        batch_size: B, rows per batch.
        seed: of the permutations.
        labels: what the rows of a name are called in `Batch.domains`, if not by the name.
        pad_id: the id that fills rows of conversations.

    A stream that runs out starts its next epoch, in another order.

    Raises:
        MobileMoEError: on unknown names, bad weights or sizes, or a stream shorter than one row.
    """

    def __init__(
        self,
        streams: Mapping[str, Stream | Windows],
        weights: Mapping[str, float],
        context: int,
        batch_size: int,
        seed: int,
        labels: Mapping[str, str] | None = None,
        pad_id: int = END_OF_TEXT,
    ) -> None:
        _check(streams, weights, context, batch_size, seed)
        self._schedule = Schedule(weights)
        self.names = self._schedule.names
        self.batch_size = batch_size
        self.context = context
        self.seed = seed
        self._labels = {name: (labels or {}).get(name, name) for name in self.names}
        self._windows = {name: make_windows(streams[name], context, pad_id) for name in self.names}
        self._orders: dict[str, dict[int, Order]] = {name: {} for name in self.names}

    @property
    def counts(self) -> dict[str, Count]:
        """Where the tokens of each stream went, per epoch."""
        return {name: windows.count for name, windows in self._windows.items()}

    @property
    def tokens_per_batch(self) -> int:
        """B T."""
        return self.batch_size * self.context

    def batch(self, step: int) -> Batch:
        """Return the batch of one step; equal steps give equal bits.

        Raises:
            MobileMoEError: if `step` is negative.
        """
        return self.batch_rows(step, range(self.batch_size))

    def batch_rows(self, step: int, rows: range) -> Batch:
        """Return some rows of the batch of one step: what one of several devices needs.

        Batches of ranges that make up `range(batch_size)` make up `batch(step)`.

        Raises:
            MobileMoEError: if `step` is negative, or `rows` are none or not all in the batch.
        """
        if step < 0:
            raise MobileMoEError(f"step is {step}; allowed: 0 and more")
        if not rows or min(rows) < 0 or max(rows) >= self.batch_size:
            raise MobileMoEError(f"rows are {rows}; allowed: some of 0 to {self.batch_size - 1}")
        places = [self.locate(step * self.batch_size + i) for i in rows]
        found = [self._windows[name].row(window) for name, _, window in places]
        return stack(found, tuple(self._labels[name] for name, _, _ in places))

    def rows_drawn(self, steps: int) -> dict[str, int]:
        """Return how many rows each name gives to `steps` batches."""
        return self._schedule.drawn(steps * self.batch_size)

    def epochs(self, steps: int) -> dict[str, float]:
        """Return how often `steps` batches go through each stream."""
        drawn = self.rows_drawn(steps)
        return {name: drawn[name] / len(self._windows[name]) for name in self.names}

    def locate(self, row: int) -> tuple[str, int, int]:
        """Return name, epoch and window of row `row` of the endless sequence."""
        name, position = self._schedule.locate(row)
        epoch, rank = divmod(position, len(self._windows[name]))
        return name, epoch, int(self._order(name, epoch)[rank])

    def _order(self, name: str, epoch: int) -> Order:
        kept = self._orders[name]
        order = kept.get(epoch)
        if order is None:
            order = shuffled(len(self._windows[name]), name, epoch, self.seed)
            # The last two: threads that read ahead are on both sides of an epoch's end. A new
            # dict, because they must not see it change.
            recent = dict(list(kept.items())[-1:])
            self._orders[name] = recent | {epoch: order}
        return order


def make_windows(stream: Stream | Windows, context: int, pad_id: int = END_OF_TEXT) -> Windows:
    """Return the rows of a stream or a conversation set; rows that are made already stay."""
    if isinstance(stream, StreamWindows | PackedConversations):
        return stream
    if isinstance(stream, Conversations):
        return PackedConversations(stream, context, pad_id)
    assert isinstance(stream, Tokens)
    return StreamWindows(stream, context)


def stack(rows: list[tuple[Ids, Ids]], domains: tuple[str, ...]) -> Batch:
    """Return rows as one batch."""
    return Batch(np.stack([ids for ids, _ in rows]), np.stack([t for _, t in rows]), domains)


def _check(
    streams: Mapping[str, object],
    weights: Mapping[str, float],
    context: int,
    batch_size: int,
    seed: int,
) -> None:
    for field, value, low in (("context", context, 2), ("batch_size", batch_size, 1)):
        if value < low:
            raise MobileMoEError(f"{field} is {value}; allowed: {low} and more")
    if not 0 <= seed < 2**63:
        raise MobileMoEError(f"seed is {seed}; allowed: 0 to 2**63 - 1")
    unknown = sorted(set(weights) - set(streams))
    if unknown:
        raise MobileMoEError(
            f"weights name {', '.join(map(repr, unknown))}; allowed: {', '.join(sorted(streams))}"
        )
