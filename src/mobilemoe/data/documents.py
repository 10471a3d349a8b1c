"""What the corpus is made of, and which part of it is never trained on.

The split is by *unit*, not by document: a unit is everything that repeats the same content.
All documents cut from one standard library module, its docstrings in the knowledge domain
and the conversations made of it share a unit, so the docstring of a held-out function
cannot be trained on elsewhere. A help topic is a unit; a mathematical problem (its kind and
numbers, whatever the phrasing) is a unit. The side depends on nothing but the unit's name:
it is the same on every machine, for every seed and every corpus size.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain
from typing import Literal

Domain = Literal["code", "knowledge", "math"]
DOMAINS: tuple[Domain, ...] = ("code", "knowledge", "math")

HELD_OUT_SHARE = 0.05
UNIT_MARK = "#"


@dataclass(frozen=True)
class Document:
    """One text of one domain. `name` is "unit#part"; the unit decides the side."""

    domain: Domain
    name: str
    text: str

    @property
    def unit(self) -> str:
        """What this document must stay together with."""
        return unit_of(self.name)


@dataclass(frozen=True)
class Conversation:
    """One question and its answer; `name` is "unit#part" as in `Document`."""

    domain: Domain
    user: str
    assistant: str
    name: str

    @property
    def unit(self) -> str:
        """What this conversation must stay together with."""
        return unit_of(self.name)


def unit_of(name: str) -> str:
    """Return the part of a document's name that decides its side."""
    return name.partition(UNIT_MARK)[0]


def is_held_out(unit: str) -> bool:
    """Whether a unit belongs to the held-out side: `HELD_OUT_SHARE` of all hashes."""
    return hash_point(unit) < HELD_OUT_SHARE * 2**64


def hash_point(unit: str) -> int:
    """Return the 64 bits of a unit's hash that decide its side."""
    return int.from_bytes(sha256(unit.encode()).digest()[:8], "big")


def unique(documents: Iterable[Document]) -> list[Document]:
    """Keep the first of documents with equal text, so that no text lies on both sides."""
    first: dict[str, Document] = {}
    for document in documents:
        first.setdefault(document.text, document)
    return list(first.values())


def corpus_sha256(documents: Iterable[Document], conversations: Iterable[Conversation]) -> str:
    """Return the hash of every name and text in order."""
    digest = sha256()
    rows = [(d.domain, d.name, d.text) for d in documents]
    talks = [(c.domain, c.name, c.user, c.assistant) for c in conversations]
    for part in chain.from_iterable([*rows, *talks]):
        data = part.encode()
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()
