"""The chat format's ids in any tokenizer that has them; its form is in `tokens.py`."""

from __future__ import annotations

from dataclasses import dataclass

from tokenizers import Tokenizer

from mobilemoe.errors import MobileMoEError

# Llama 3 spells some of them otherwise than the release.
_SPELLINGS = {
    "begin": ("<|begin_of_text|>",),
    "end": ("<|end_of_text|>",),
    "header_start": ("<|header_start|>", "<|start_header_id|>"),
    "header_end": ("<|header_end|>", "<|end_header_id|>"),
    "eot": ("<|eot|>", "<|eot_id|>"),
}


@dataclass(frozen=True)
class ChatFormat:
    """Ids of the five special tokens that documents and conversations are framed with."""

    begin: int
    end: int
    header_start: int
    header_end: int
    eot: int

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> ChatFormat:
        """Look the tokens up by their texts.

        Raises:
            MobileMoEError: if the tokenizer lacks one of them.
        """
        return cls(**{name: _id(tokenizer, texts) for name, texts in _SPELLINGS.items()})


def _id(tokenizer: Tokenizer, texts: tuple[str, ...]) -> int:
    for text in texts:
        found: int | None = tokenizer.token_to_id(text)
        if found is not None:
            return found
    raise MobileMoEError(
        f"the tokenizer has no token {' or '.join(texts)}",
        hint='training needs the tokens of the chat format; use tokenizer = "embedded", or one '
        "of the Llama 3 family",
    )


def special_texts(tokenizer: Tokenizer) -> tuple[str, ...]:
    """Return the texts of all special tokens, longest first."""
    added = tokenizer.get_added_tokens_decoder().values()
    return tuple(sorted((token.content for token in added if token.special), key=len)[::-1])


def largest_id(tokenizer: Tokenizer) -> int:
    """Return the largest id of the vocabulary, added tokens included."""
    return max(tokenizer.get_vocab(with_added_tokens=True).values())
