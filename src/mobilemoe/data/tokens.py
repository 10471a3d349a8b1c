r"""Documents and conversations as token ids.

A document is `<|begin_of_text|>` text `<|end_of_text|>`. A conversation is, as in the
released chat format, `<|begin_of_text|>`, then per turn `<|header_start|>` role
`<|header_end|>` "\n\n" text `<|eot|>`. Texts never produce special tokens: a special
token spelled out in a text is refused, because it would end a turn.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from mobilemoe.data.documents import Conversation
from mobilemoe.data.tokenizer import (
    BEGIN_OF_TEXT,
    END_OF_TEXT,
    EOT,
    HEADER_END,
    HEADER_START,
    SPECIAL_TOKENS,
)
from mobilemoe.errors import MobileMoEError

TokenArray = NDArray[np.unsignedinteger[Any]]  # uint16, or uint32 for a large vocabulary

_SLICE = 512  # texts encoded at a time: bounds memory


@dataclass(frozen=True)
class ConversationSet:
    """Tokenised conversations in one flat array.

    Conversation i is `tokens[offsets[i]:offsets[i + 1]]`; the assistant's text and its
    `<|eot|>` are its tokens from `answers[i]` (relative to its start) to its end.
    """

    tokens: TokenArray
    offsets: NDArray[np.int64]
    answers: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.answers)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each conversation."""
        return np.diff(self.offsets)

    @property
    def learnt(self) -> NDArray[np.int64]:
        """Tokens of each conversation that are targets."""
        return self.lengths - self.answers

    def conversation(self, index: int) -> tuple[TokenArray, NDArray[np.bool_]]:
        """Return the ids [N] of one conversation and the mask [N] of what is learnt."""
        ids = self.tokens[self.offsets[index] : self.offsets[index + 1]]
        return ids, np.arange(len(ids)) >= self.answers[index]


def token_dtype(tokenizer: Tokenizer) -> type[np.uint16] | type[np.uint32]:
    """Return the smallest array type that holds every id."""
    return np.uint16 if tokenizer.get_vocab_size() <= 2**16 else np.uint32


def encode_documents(tokenizer: Tokenizer, texts: Sequence[str]) -> TokenArray:
    """Return the documents one after the other, each between its two special tokens."""
    ids: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    for text_ids in _encode(tokenizer, texts):
        ids.append(np.array([BEGIN_OF_TEXT, *text_ids, END_OF_TEXT], np.int64))
    return np.concatenate(ids).astype(token_dtype(tokenizer))


def encode_conversations(
    tokenizer: Tokenizer, conversations: Sequence[Conversation]
) -> ConversationSet:
    """Tokenise conversations; the format is at the top of this file."""
    user_head, assistant_head = (_header(tokenizer, role) for role in ("user", "assistant"))
    users = _encode(tokenizer, [talk.user for talk in conversations])
    assistants = _encode(tokenizer, [talk.assistant for talk in conversations])
    flat: list[int] = []
    offsets, answers = [0], []
    for user, assistant in zip(users, assistants, strict=True):
        prompt = [BEGIN_OF_TEXT, *user_head, *user, EOT, *assistant_head]
        flat += [*prompt, *assistant, EOT]
        offsets.append(len(flat))
        answers.append(len(prompt))
    return ConversationSet(
        np.array(flat, token_dtype(tokenizer)),
        np.array(offsets, np.int64),
        np.array(answers, np.int64),
    )


def _header(tokenizer: Tokenizer, role: str) -> list[int]:
    name, gap = _encode(tokenizer, [role, "\n\n"])
    return [HEADER_START, *name, HEADER_END, *gap]


def _encode(tokenizer: Tokenizer, texts: Sequence[str]) -> Iterable[list[int]]:
    for text in texts:
        _refuse_special(text)
    for start in range(0, len(texts), _SLICE):
        part = list(texts[start : start + _SLICE])
        yield from (row.ids for row in tokenizer.encode_batch(part, add_special_tokens=False))


def _refuse_special(text: str) -> None:
    found = [token for token in SPECIAL_TOKENS if token in text]
    if found:
        raise MobileMoEError(
            f"a text contains the special token {found[0]}: {text[:60]!r}",
            hint="remove it; special tokens are added by the format, never by a text",
        )
