r"""Known answers of the released tokenizer, and what must hold for any tokenizer of the family.

The chat format is BOS <hs>role<he>\n\n text <eot> ... <hs>assistant<he>\n\n.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from mobilemoe.checkpoint.chat_known import builtin_render
from mobilemoe.checkpoint.tokenizer import BOS, Tokenizer

RELEASED_VOCAB_SIZE = 128_256
RELEASED_TOKEN_COUNT = 128_000  # without special tokens
RELEASED_SPECIAL_IDS: Mapping[str, int] = {
    BOS: 128_000,
    "<|header_start|>": 128_005,
    "<|header_end|>": 128_006,
    "<|eot|>": 128_008,
}
RELEASED_IDS: Mapping[str, tuple[int, ...]] = {
    "Hello, MobileMoE!": (128_000, 9906, 11, 13716, 26694, 36, 0),
}
ROUND_TRIPS: Mapping[str, str] = {
    "code": "def add(a , b):\n    return a + b . real  # don 't\n\n\tx = [ 1 , 2 ] ; y != x\r\n",
    "Unicode": "Grüße, naïve; 日本語 한국어 العربية 🎉👨‍👩‍👧 e\u0301 \u200d\ufeff\U0010fffd",
    "whitespace": " \t  \n\n \r\n   x  \u00a0\u3000 y \n    ",
}

Status = Literal["pass", "fail", "skip"]


@dataclass(frozen=True)
class Golden:
    """One check: its name, how it ended, and what was found or why it does not apply."""

    name: str
    status: Status
    detail: str


def golden_check(tokenizer: Tokenizer) -> tuple[Golden, ...]:
    """Compare `tokenizer` with the release as far as it is the released one, and check itself.

    Ids are compared in a vocabulary of at least 128,000 tokens, ids of special tokens in one of
    128,256 ids; elsewhere these say "skip" and why. Round trips, the stream, BOS and the chat
    format are checked always.
    """
    return tuple(_checks(tokenizer))


def _checks(tokenizer: Tokenizer) -> Iterator[Golden]:
    yield _special_ids(tokenizer)
    for text, ids in RELEASED_IDS.items():
        yield _ids(tokenizer, text, ids)
    yield _one_bos(tokenizer)
    yield _chat_format(tokenizer)
    for name, text in ROUND_TRIPS.items():
        yield _round_trip(tokenizer, name, text)
    yield _stream(tokenizer)


def _special_ids(tokenizer: Tokenizer) -> Golden:
    name = "ids of the special tokens"
    last = RELEASED_VOCAB_SIZE - 1
    if not tokenizer.has_token(last) or tokenizer.has_token(last + 1):
        return Golden(name, "skip", f"the vocabulary does not end at the released id {last}")
    found = {token: tokenizer.special_tokens.get(token) for token in RELEASED_SPECIAL_IDS}
    return _compare(name, found, dict(RELEASED_SPECIAL_IDS))


def _ids(tokenizer: Tokenizer, text: str, ids: Sequence[int]) -> Golden:
    name = f"ids of {text!r}"
    count = tokenizer.token_count
    if count < RELEASED_TOKEN_COUNT:
        return Golden(name, "skip", f"{count} tokens: not the released vocabulary")
    return _compare(name, tokenizer.encode(text), list(ids))


def _one_bos(tokenizer: Tokenizer) -> Golden:
    name = "BOS once"
    if tokenizer.bos_id is None:
        return Golden(name, "skip", f"the vocabulary has no {BOS}")
    counts = [tokenizer.encode(text).count(tokenizer.bos_id) for text in ("Hello", f"{BOS}Hello")]
    return _compare(name, counts, [1, 1])


def _chat_format(tokenizer: Tokenizer) -> Golden:
    """Check that the markers of one chat turn are single ids, around the plain ids of its text."""
    name = "chat format"
    missing = [token for token in RELEASED_SPECIAL_IDS if token not in tokenizer.special_tokens]
    if missing:
        return Golden(name, "skip", f"the vocabulary has no {', '.join(missing)}")
    bos, start, end, eot = (tokenizer.special_tokens[token] for token in RELEASED_SPECIAL_IDS)
    user, text, assistant, gap = (
        tokenizer.encode(part, add_bos=False) for part in ("user", "\n\nHello", "assistant", "\n\n")
    )
    turn = [bos, start, *user, end, *text, eot, start, *assistant, end, *gap]
    rendered = builtin_render([{"role": "user", "content": "Hello"}], BOS)
    return _compare(name, tokenizer.encode(rendered), turn)


def _round_trip(tokenizer: Tokenizer, name: str, text: str) -> Golden:
    ids = tokenizer.encode(text)
    return _compare(f"round trip of {name}", tokenizer.decode(ids), text, f"{len(ids)} tokens")


def _stream(tokenizer: Tokenizer) -> Golden:
    """Check the stream on whole texts, and on tokens left out and swapped inside characters."""
    ids = [token_id for text in ROUND_TRIPS.values() for token_id in tokenizer.encode(text)]
    odd = ids[::2] + ids[1::3] + [token_id for pair in pairwise(ids) for token_id in pair[::-1]]
    stream = tokenizer.stream()
    texts = ["".join([*map(stream.push, given), stream.flush()]) for given in (ids, odd)]
    whole = [tokenizer.decode(given) for given in (ids, odd)]
    return _compare("stream equals decode", texts, whole, f"{len(ids) + len(odd)} tokens")


def _compare(name: str, found: object, expected: object, detail: str = "") -> Golden:
    if found == expected:
        return Golden(name, "pass", detail or f"{expected!r:.200}")
    return Golden(name, "fail", f"{found!r:.200} instead of {expected!r:.200}")
