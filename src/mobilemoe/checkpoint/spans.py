"""Which bytes of a text each of its tokens stands for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mobilemoe.checkpoint.tokenizer import Tokenizer


@dataclass(frozen=True)
class TokenSpan:
    """One token: its id, its bytes, and where these lie in the text (`start` up to `end`)."""

    id: int
    raw: bytes
    special: bool
    start: int
    end: int

    @property
    def text(self) -> str | None:
        """The token as text; None if its bytes are no whole characters."""
        try:
            return self.raw.decode()
        except UnicodeDecodeError:
            return None


def token_spans(
    tokenizer: Tokenizer, ids: Sequence[int], bos_added: bool = False
) -> Iterator[TokenSpan]:
    """Yield the span of each token in the UTF-8 bytes of the text that `ids` encode.

    With `bos_added` the first token is not in the text and takes no bytes of it.
    """
    special_ids = set(tokenizer.special_tokens.values())
    start = 0
    for index, token_id in enumerate(ids):
        raw = tokenizer.token_bytes(token_id, skip_special_tokens=False)
        end = start if bos_added and index == 0 else start + len(raw)
        yield TokenSpan(token_id, raw, token_id in special_ids, start, end)
        start = end
