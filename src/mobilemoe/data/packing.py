"""Packing: which conversations share a row. Numbers only; ten million are a matter of seconds."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

OPEN_ROWS = 32  # rows kept open while packing
_SLICE = 2**16  # lengths held as Python numbers at a time


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Return the rows of `pack_rows` as lists."""
    members, starts = pack_rows(np.array(lengths, np.int64), capacity)
    return [members[a:b].tolist() for a, b in pairwise(starts)]


def pack_rows(
    lengths: NDArray[np.int64], capacity: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pack indices into rows whose lengths add up to at most `capacity`.

    Best fit among the last `OPEN_ROWS` rows, the oldest of equals, in the order given; a length
    above the capacity is left out. Row r is `members[starts[r]:starts[r + 1]]`, ascending.
    """
    row_of = np.full(len(lengths), -1, np.int64)
    rows = _assign_rows(lengths, capacity, row_of)
    members = np.argsort(row_of, kind="stable")[np.count_nonzero(row_of < 0) :]
    sizes = np.bincount(row_of[members], minlength=rows)
    return members, np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


def _assign_rows(lengths: NDArray[np.int64], capacity: int, row_of: NDArray[np.int64]) -> int:
    """Write the row of each length to `row_of`; return how many rows there are."""
    by_room: list[tuple[int, int]] = []  # (room, row) of the open rows, sorted
    room_of: deque[int] = deque()  # room of the open rows, the oldest first
    rows = 0
    for index, length in _numbered(lengths):
        if length > capacity:
            continue
        place = bisect_left(by_room, (length, -1))
        if place < len(by_room):
            room, row = by_room.pop(place)
        else:
            room, row, rows = capacity, rows, rows + 1
            if len(room_of) == OPEN_ROWS:
                oldest = (room_of.popleft(), row - OPEN_ROWS)
                del by_room[bisect_left(by_room, oldest)]
            room_of.append(capacity)
        row_of[index] = row
        room_of[row - rows] = room - length
        insort(by_room, (room - length, row))
    return rows


def _numbered(lengths: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    for start in range(0, len(lengths), _SLICE):
        yield from enumerate(lengths[start : start + _SLICE].tolist(), start)
