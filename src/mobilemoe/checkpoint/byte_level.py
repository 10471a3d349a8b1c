"""Byte-level tokens: the alphabet that spells bytes as letters, and text from tokens one by one.

A byte-level vocabulary is written in printable characters, one per byte (the scheme of GPT-2):
a printable Latin-1 byte stands for itself, and the other 68 take the characters from U+0100 on,
in order. So a space is "Ġ" and half a character is still a word that JSON can hold.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Mapping

_PRINTABLE = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
_OTHERS = tuple(byte for byte in range(256) if byte not in _PRINTABLE)

# Bytes in the order of the released vocabulary, whose ids 0 to 255 they are.
BYTE_ORDER = (*_PRINTABLE, *_OTHERS)
LETTER_OF_BYTE: Mapping[int, str] = {
    **{byte: chr(byte) for byte in _PRINTABLE},
    **{byte: chr(0x100 + index) for index, byte in enumerate(_OTHERS)},
}
_BYTE_OF_LETTER = {letter: byte for byte, letter in LETTER_OF_BYTE.items()}


def spell(raw: bytes) -> str:
    """Return `raw` in the letters of the vocabulary."""
    return "".join(LETTER_OF_BYTE[byte] for byte in raw)


def bytes_of(token: str) -> bytes:
    """Return the bytes that `token` stands for.

    A token with any character outside the alphabet, such as an added token with a space in it,
    stands for itself in UTF-8; the tokenizers library decodes it in the same way.
    """
    try:
        return bytes([_BYTE_OF_LETTER[letter] for letter in token])
    except KeyError:
        return token.encode()


class TextStream:
    """Text from token ids, one at a time: never half a character, linear in time.

    `token_bytes(id)` gives the bytes of one token. Bytes that can no longer become a character
    are U+FFFD, one per longest broken piece as in `bytes.decode(errors="replace")`; so the
    pieces of any ids join to the text of all their bytes.
    """

    def __init__(self, token_bytes: Callable[[int], bytes]) -> None:
        self._token_bytes = token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    @property
    def pending(self) -> bytes:
        """Bytes that wait for the rest of their character: at most three."""
        waiting: bytes = self._decoder.getstate()[0]
        return waiting

    def push(self, token_id: int) -> str:
        """Return the text that `token_id` completes, possibly empty."""
        return self._decoder.decode(self._token_bytes(token_id))

    def flush(self) -> str:
        """Return what is left at the end; bytes that form no character become U+FFFD."""
        return self._decoder.decode(b"", final=True)
