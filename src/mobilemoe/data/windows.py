"""Fixed-length training rows: windows cut from a stream, and packed conversations.

T is the context. A row is `ids_T` and `targets_T`: the target of a position is the id that
follows it, or `IGNORED`. Rows are numbered; which row comes when is decided elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mobilemoe.data.packing import pack_rows
from mobilemoe.data.tokens import TokenArray
from mobilemoe.errors import MobileMoEError

Ids = NDArray[np.int64]

IGNORED = -100


@dataclass(frozen=True)
class Count:
    """Where the tokens went: `tokens == used + dropped`, `rows * row_tokens == used + padded`.

    Of the used tokens `learnt` are targets: all of a stream's, the answers of conversations.
    """

    tokens: int
    used: int
    dropped: int
    padded: int
    rows: int
    row_tokens: int
    conversations_dropped: int = 0
    learnt: int = 0

    def __str__(self) -> str:
        return (
            f"{self.tokens:,} tokens in = {self.used:,} used + {self.dropped:,} dropped; "
            f"{self.rows:,} rows of {self.row_tokens:,} = {self.used:,} used + "
            f"{self.padded:,} padded; {self.learnt:,} learnt"
        )


class Windows(Protocol):
    """Numbered rows of one context length."""

    @property
    def count(self) -> Count:
        """Where the tokens went."""
        ...

    def __len__(self) -> int: ...

    def row(self, index: int) -> tuple[Ids, Ids]:
        """Return `ids_T` and `targets_T` of one row."""
        ...


@runtime_checkable
class Tokens(Protocol):
    """A long array of token ids, which need not be in memory."""

    def __len__(self) -> int: ...

    def __getitem__(self, wanted: slice, /) -> TokenArray: ...


@runtime_checkable
class Conversations(Protocol):
    """Numbered conversations, which need not be in memory."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each."""
        ...

    @property
    def learnt(self) -> NDArray[np.int64]:
        """Tokens of each that are targets."""
        ...

    def conversation(self, index: int) -> tuple[TokenArray, NDArray[np.bool_]]:
        """Return the ids [N] of one and the mask [N] of what is learnt."""
        ...


class StreamWindows:
    """Windows of T + 1 tokens that share one token: every token is a target exactly once.

    The first token of the stream is never a target, and the tail that fills no window is
    dropped; `count` counts targets, so each row has T of them.
    """

    def __init__(self, tokens: Tokens, context: int) -> None:
        self._tokens = tokens
        self._context = context
        self._rows = (len(tokens) - 1) // context
        if self._rows < 1:
            raise MobileMoEError(
                f"a stream of {len(tokens)} tokens has no window of context {context}",
                hint=f"use a context below {len(tokens)} or more documents",
            )

    @property
    def count(self) -> Count:
        """Where the targets went; the first token and the tail are dropped."""
        used = self._rows * self._context
        return Count(
            tokens=len(self._tokens),
            used=used,
            dropped=len(self._tokens) - used,
            padded=0,
            rows=self._rows,
            row_tokens=self._context,
            learnt=used,
        )

    def __len__(self) -> int:
        return self._rows

    def row(self, index: int) -> tuple[Ids, Ids]:
        """Return `ids_T` and `targets_T` of one window."""
        start = index * self._context
        window = self._tokens[start : start + self._context + 1].astype(np.int64)
        return window[:-1], window[1:]


class PackedConversations:
    """Whole conversations packed into rows of T tokens; only the assistant's are targets.

    A conversation longer than T is dropped and counted. The rest of a row is padding:
    `pad_id` with target `IGNORED`.
    """

    def __init__(self, conversations: Conversations, context: int, pad_id: int) -> None:
        self._conversations = conversations
        self._context = context
        self._pad_id = pad_id
        self._members, self._starts = pack_rows(conversations.lengths, context)
        if not len(self):
            raise MobileMoEError(
                f"no conversation fits a context of {context} tokens",
                hint="use a larger context",
            )

    @property
    def count(self) -> Count:
        """Where the tokens went."""
        lengths = self._conversations.lengths
        used = int(lengths[self._members].sum())
        rows = len(self)
        return Count(
            tokens=int(lengths.sum()),
            used=used,
            dropped=int(lengths.sum()) - used,
            padded=rows * self._context - used,
            rows=rows,
            row_tokens=self._context,
            conversations_dropped=int((lengths > self._context).sum()),
            learnt=int(self._conversations.learnt[self._members].sum()),
        )

    def __len__(self) -> int:
        return len(self._starts) - 1

    def row(self, index: int) -> tuple[Ids, Ids]:
        """Return `ids_T` and `targets_T` of one packed row."""
        ids_T = np.full(self._context, self._pad_id, np.int64)
        learnt_T = np.zeros(self._context + 1, np.bool_)
        start = 0
        for member in self._members[self._starts[index] : self._starts[index + 1]]:
            ids, learnt = self._conversations.conversation(int(member))
            ids_T[start : start + len(ids)] = ids
            learnt_T[start : start + len(ids)] = learnt
            start += len(ids)
        following_T = np.append(ids_T[1:], IGNORED)
        return ids_T, np.where(learnt_T[1:], following_T, IGNORED)
