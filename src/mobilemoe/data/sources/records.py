"""What a source yields: records, each with its place, and those that cannot be read."""

from __future__ import annotations

from dataclasses import dataclass

MAX_RECORD_BYTES = 8 * 2**20  # a longer line or text is refused: memory stays bounded
SHOWN_BAD = 100  # bad records that are listed one by one; all are counted


@dataclass(frozen=True)
class Place:
    """Where a record is: file, number in the file (from 0), and byte offset where one exists.

    In a compressed file the offset counts bytes of the content.
    """

    file: str
    record: int
    byte: int | None = None

    def __str__(self) -> str:
        at = f", byte {self.byte}" if self.byte is not None else ""
        return f"{self.file}: record {self.record}{at}"


@dataclass(frozen=True)
class Record:
    """One record as it was read: the bytes of a line or a text, or the fields of a row."""

    place: Place
    payload: object


@dataclass(frozen=True)
class BadRecord:
    """A record that is skipped. `reason` is one of few, for counting; `detail` says more."""

    place: Place
    reason: str
    detail: str = ""

    def __str__(self) -> str:
        more = f" ({self.detail})" if self.detail else ""
        return f"{self.place}: {self.reason}{more}"


Raw = Record | BadRecord


@dataclass(frozen=True)
class Turn:
    """What one speaker says in a conversation."""

    role: str
    content: str


@dataclass(frozen=True)
class Sample:
    """A text to learn, or a conversation whose assistant's turns are learnt; one of them.

    `unit` is what must not lie on both sides of the split: the text, or the first question.
    """

    place: Place
    text: str = ""
    turns: tuple[Turn, ...] = ()

    @property
    def unit(self) -> str:
        """The text; of a conversation, the first thing that is not the system's."""
        if not self.turns:
            return self.text
        return next(turn.content for turn in self.turns if turn.role != "system")
