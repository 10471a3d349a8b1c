"""Token streams and conversations that lie in many mapped files, as if they were one array."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilemoe.data.shards.index import FileInfo, Index, Part, file_name
from mobilemoe.data.tokens import TokenArray
from mobilemoe.errors import MobileMoEError


@dataclass(frozen=True)
class _Piece:
    """The files of one side of one shard."""

    folder: Path
    side: str
    number: int
    part: Part

    def path(self, suffix: str) -> Path:
        return self.folder / file_name(self.side, self.number, suffix)

    def array(self, suffix: str, dtype: str) -> NDArray[Any]:
        """Map one file.

        Raises:
            MobileMoEError: if it is not there, or not as long as the index says.
        """
        check_size(self.path(suffix), self.part.files[suffix])
        return np.memmap(self.path(suffix), dtype, mode="r")


def check_size(path: Path, info: FileInfo) -> None:
    """Refuse a file that is missing, truncated or too long.

    Raises:
        MobileMoEError: naming the file and where it ends.
    """
    try:
        size = path.stat().st_size
    except OSError as error:
        raise MobileMoEError(f"{path}: cannot be read: {error.strerror}", hint=_AGAIN) from error
    if size != info.bytes:
        raise MobileMoEError(
            f"{path}: ends at byte {size}; the index says {info.bytes}", hint=_AGAIN
        )


_AGAIN = "delete the folder and prepare it again"


class ShardTokens:
    """The tokens of one side of all shards, one after the other; files are mapped when read.

    It has the length and the slices of an array of token ids. Reads may come from any number
    of threads and processes.
    """

    def __init__(self, folder: Path, side: str, index: Index) -> None:
        self._dtype = index.dtype
        self._largest_id = index.largest_id
        self._pieces = pieces(folder, side, index)
        sizes = [piece.part.tokens for piece in self._pieces]
        self._ends = np.cumsum(np.array(sizes, np.int64))
        self._arrays: dict[int, TokenArray] = {}

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, wanted: slice) -> TokenArray:
        """Return the tokens of a slice without step.

        Raises:
            MobileMoEError: naming the file and the offset of an id that no token has.
        """
        start, stop, step = wanted.indices(len(self))
        if step != 1:
            raise ValueError(f"step is {step}; allowed: 1")
        parts = [self._read(i, a, b) for i, a, b in self._cut(start, stop)]
        if len(parts) == 1:
            return parts[0]
        return np.concatenate([np.empty(0, self._dtype), *parts])

    def _cut(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Yield shard and range within it."""
        number = int(np.searchsorted(self._ends, start, side="right"))
        while start < stop:
            first = int(self._ends[number - 1]) if number else 0
            end = min(stop, int(self._ends[number]))
            yield number, start - first, end - first
            start, number = end, number + 1

    def _read(self, number: int, start: int, stop: int) -> TokenArray:
        piece = self._pieces[number]
        if number not in self._arrays:
            self._arrays[number] = piece.array("tokens", self._dtype)
        ids: TokenArray = np.array(self._arrays[number][start:stop])
        if ids.max() > self._largest_id:
            at = (start + int(ids.argmax())) * ids.itemsize
            raise MobileMoEError(
                f"{piece.path('tokens')}: damaged at byte {at}: id {ids.max()}; allowed: 0 to "
                f"{self._largest_id}",
                hint=_AGAIN,
            )
        return ids


class ShardConversations:
    """The conversations of one side of all shards; as `ConversationSet`, on mapped files.

    Held in memory: 16 bytes per conversation and 16 per answer.
    """

    def __init__(self, folder: Path, side: str, index: Index) -> None:
        self._tokens = ShardTokens(folder, side, index)
        offsets: list[NDArray[np.int64]] = [np.zeros(1, np.int64)]
        spans: list[NDArray[np.int64]] = [np.empty((0, 2), np.int64)]
        first = 0
        for piece in pieces(folder, side, index):
            offsets.append(piece.array("offsets", "<i8")[1:] + first)
            spans.append(piece.array("spans", "<i8").reshape(-1, 2) + first)
            first += piece.part.tokens
        self._offsets = np.concatenate(offsets)
        self._spans = np.concatenate(spans)
        self._first_span = np.searchsorted(self._spans[:, 0], self._offsets)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each conversation."""
        return np.diff(self._offsets)

    @property
    def learnt(self) -> NDArray[np.int64]:
        """Tokens of each conversation that are targets."""
        sizes = np.cumsum([0, *(self._spans[:, 1] - self._spans[:, 0])])
        return np.diff(sizes[self._first_span])

    def conversation(self, index: int) -> tuple[TokenArray, NDArray[np.bool_]]:
        """Return the ids [N] of one conversation and the mask [N] of what is learnt."""
        start, stop = int(self._offsets[index]), int(self._offsets[index + 1])
        learnt = np.zeros(stop - start, np.bool_)
        spans = self._spans[self._first_span[index] : self._first_span[index + 1]]
        for a, b in spans - start:
            learnt[a:b] = True
        return self._tokens[start:stop], learnt


def pieces(folder: Path, side: str, index: Index) -> Sequence[_Piece]:
    """Return the parts of one side that hold anything, in order."""
    found = [_Piece(folder, side, s.number, s.part(side)) for s in index.shards]
    return [piece for piece in found if piece.part.documents]
