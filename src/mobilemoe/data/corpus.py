"""The corpus in text: every document and conversation, before any tokenizer sees it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mobilemoe.data.documents import Conversation, Document, corpus_sha256, unique
from mobilemoe.data.instructions import completions, explanations, solutions
from mobilemoe.data.knowledge import Seen, docstring_documents, entries, topic_documents
from mobilemoe.data.maths import math_documents
from mobilemoe.data.source_code import code_documents
from mobilemoe.data.stdlib import module_paths, read_module
from mobilemoe.errors import MobileMoEError


@dataclass(frozen=True)
class Corpus:
    """Documents without exact duplicates, and conversations; both in a fixed order."""

    documents: tuple[Document, ...]
    conversations: tuple[Conversation, ...]

    @property
    def sha256(self) -> str:
        """The hash of every name and text in order."""
        return corpus_sha256(self.documents, self.conversations)


@dataclass(frozen=True)
class CorpusOptions:
    """How much to take. `max_modules` keeps evenly spaced modules; None keeps all.

    Raises:
        MobileMoEError: if a count is out of range.
    """

    seed: int = 0
    math_documents: int = 12_000
    math_conversations: int = 4_000
    max_modules: int | None = None

    def __post_init__(self) -> None:
        lows = {"seed": 0, "math_documents": 1, "math_conversations": 1, "max_modules": 1}
        for field, low in lows.items():
            value = getattr(self, field)
            if field == "max_modules" and value is None:
                continue
            if type(value) is not int or not low <= value < 2**31:
                raise MobileMoEError(f"{field} is {value!r}; allowed: {low} to 2147483647")


def read_corpus(options: CorpusOptions) -> Corpus:
    """Read, clean, cut and generate everything; a few seconds for the whole library."""
    seen = Seen()
    documents = topic_documents(seen)
    conversations: list[Conversation] = []
    for path in _selected(options.max_modules):
        module = read_module(path)
        if module is not None:
            found = entries(module)
            documents += docstring_documents(found, seen)
            documents += code_documents(module)
            conversations += explanations(found)
            conversations += completions(module)
    documents += math_documents(options.math_documents, options.seed)
    start = options.math_documents
    conversations += solutions(start, options.math_conversations, options.seed)
    return Corpus(tuple(unique(documents)), tuple(unique_answers(conversations)))


def _selected(limit: int | None) -> list[Path]:
    paths = module_paths()
    if limit is None or limit >= len(paths):
        return paths
    return [paths[i * len(paths) // limit] for i in range(limit)]


def unique_answers(conversations: list[Conversation]) -> list[Conversation]:
    """Keep the first of conversations that give one answer to one kind of question.

    Inherited docstrings and copied helpers would otherwise lie on both sides. Problems are
    told apart by their numbers, so they are kept.
    """
    first: dict[tuple[str, str], Conversation] = {}
    for talk in conversations:
        key = (talk.domain, talk.name if talk.domain == "math" else talk.assistant)
        first.setdefault(key, talk)
    return list(first.values())
