"""Training batches as a pure function of (seed, step), so that resuming is exact.

B batch, T context. Rows of all batches form one endless sequence; row r belongs to a domain
by a fixed schedule of `PERIOD` rows that repeats, and to that domain's n-th row, which a
permutation per epoch turns into a window. Nothing depends on what was asked before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from mobilemoe.data.tokenizer import END_OF_TEXT
from mobilemoe.data.tokens import ConversationSet, TokenArray
from mobilemoe.data.windows import Count, Ids, PackedConversations, StreamWindows, Windows
from mobilemoe.errors import MobileMoEError

PERIOD = 4096  # shares are exact to one row in this many


@dataclass(frozen=True)
class Batch:
    """`ids_BT` and `targets_BT` (int64; -100 is ignored), and the domain of each row."""

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

    Raises:
        MobileMoEError: on unknown names, bad weights or sizes, or a stream shorter than one row.
    """

    def __init__(
        self,
        streams: Mapping[str, TokenArray | ConversationSet],
        weights: Mapping[str, float],
        context: int,
        batch_size: int,
        seed: int,
    ) -> None:
        _check(streams, weights, context, batch_size, seed)
        self.names = tuple(sorted(name for name, weight in weights.items() if weight > 0))
        self.batch_size = batch_size
        self.context = context
        self.seed = seed
        self._windows = {name: make_windows(streams[name], context) for name in self.names}
        self._schedule = row_schedule([weights[name] for name in self.names])
        self._ranks = _ranks(self._schedule)
        self._per_period = np.bincount(self._schedule, minlength=len(self.names))
        self._orders: dict[str, tuple[int, NDArray[np.int64]]] = {}  # the last epoch's order

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
        if step < 0:
            raise MobileMoEError(f"step is {step}; allowed: 0 and more")
        places = [self.locate(step * self.batch_size + i) for i in range(self.batch_size)]
        rows = [self._windows[name].row(window) for name, _, window in places]
        return stack(rows, tuple(name for name, _, _ in places))

    def locate(self, row: int) -> tuple[str, int, int]:
        """Return domain, epoch and window of row `row` of the endless sequence."""
        turn, place = divmod(row, PERIOD)
        domain = int(self._schedule[place])
        name = self.names[domain]
        position = turn * int(self._per_period[domain]) + int(self._ranks[place])
        epoch, rank = divmod(position, len(self._windows[name]))
        return name, epoch, int(self._order(name, epoch)[rank])

    def _order(self, name: str, epoch: int) -> NDArray[np.int64]:
        kept = self._orders.get(name)
        if kept is None or kept[0] != epoch:
            order = epoch_order(len(self._windows[name]), name, epoch, self.seed)
            kept = self._orders[name] = (epoch, order)
        return kept[1]


def epoch_order(rows: int, name: str, epoch: int, seed: int) -> NDArray[np.int64]:
    """Return the permutation of one stream's rows in one epoch.

    Sorted hashes instead of a library's shuffle: the order is the same in every version.
    """
    key = sha256(f"{seed} {name} {epoch}".encode()).digest()[:8]
    x = np.arange(rows, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    x += np.uint64(int.from_bytes(key, "big"))
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)  # SplitMix64's finaliser
    return np.argsort(x ^ (x >> np.uint64(31)), kind="stable")


def row_schedule(weights: list[float]) -> NDArray[np.int64]:
    """Return which weight each row of a period belongs to, evenly interleaved.

    Each row goes to the weight that is furthest behind its share.
    """
    shares = np.array(weights, np.float64) / sum(weights)
    given = np.zeros(len(weights))
    schedule = np.empty(PERIOD, np.int64)
    for row in range(PERIOD):
        schedule[row] = np.argmax(shares * (row + 1) - given)
        given[schedule[row]] += 1
    return schedule


def _ranks(schedule: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each row how many rows of its domain come before it in the period."""
    ranks = np.empty_like(schedule)
    for domain in np.unique(schedule):
        places = np.flatnonzero(schedule == domain)
        ranks[places] = np.arange(len(places))
    return ranks


def make_windows(stream: TokenArray | ConversationSet, context: int) -> Windows:
    """Return the rows of a stream or a conversation set."""
    if isinstance(stream, ConversationSet):
        return PackedConversations(stream, context, pad_id=END_OF_TEXT)
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
    finite = all(0 <= weight < float("inf") for weight in weights.values())
    total = sum(weights.values())
    least = min((weight for weight in weights.values() if weight > 0), default=0.0)
    if not finite or total <= 0 or least < total / PERIOD:
        raise MobileMoEError(
            f"weights are {dict(weights)}; allowed: 0, or at least 1/{PERIOD} of their sum"
        )
