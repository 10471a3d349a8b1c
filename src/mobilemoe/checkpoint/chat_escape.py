"""Keeps special tokens that a message spells out from becoming control tokens.

A template may trim, cut or rearrange a message, so its text cannot be found again in the prompt.
Instead, characters at which special tokens begin and end are replaced in the messages by stand-ins
from Unicode's private use, one for one, before the template sees them; what is a special token in
the prompt after that is the template's own. Then the stand-ins turn back into what they stand for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from mobilemoe.checkpoint.tokenizer import Tokenizer

Message = Mapping[str, str]
Render = Callable[[Sequence[Message]], str]

_PRIVATE_USE = range(0xF0000, 0xFFFFE)


def encode_rendered(
    render: Render, tokenizer: Tokenizer, messages: Sequence[Message], template: str
) -> list[int]:
    """Return the ids of the rendered `messages`, control tokens only where `template` has them."""
    tokens = tuple(tokenizer.special_tokens)
    texts = [text for message in messages for text in message.values()]
    ends = sorted({token[place] for token in tokens for place in (0, -1)})
    plain = render(messages)
    if not any(end in text for text in texts for end in ends):
        return tokenizer.encode(plain, add_bos=False)
    stand_ins = _unused_letters([template, *texts])
    escape = {ord(end): stand_in for end, stand_in in zip(ends, stand_ins, strict=False)}
    unescape = {ord(stand_in): chr(end) for end, stand_in in escape.items()}
    prompt = render(_changed(messages, lambda text: text.translate(escape)))
    if prompt.translate(unescape) != plain:  # the template looks for these characters itself
        prompt = render(_changed(messages, lambda text: _escape_tokens(text, tokens, escape)))
    return _encode(tokenizer, prompt, unescape)


def _unused_letters(texts: Sequence[str]) -> Iterator[str]:
    used = set().union(*texts)
    return (letter for letter in map(chr, _PRIVATE_USE) if letter not in used)


def _changed(messages: Sequence[Message], change: Callable[[str], str]) -> list[Message]:
    return [{key: change(text) for key, text in message.items()} for message in messages]


def _escape_tokens(text: str, tokens: Sequence[str], escape: Mapping[int, str]) -> str:
    """Return `text` with stand-ins in special tokens, and in halves of them at its two ends.

    A half could become whole with what the template puts beside it.
    """
    longest_first = "|".join(re.escape(token) for token in sorted(tokens, key=len, reverse=True))
    text = re.sub(longest_first, lambda found: found[0].translate(escape), text)
    body = text.strip()
    begin, end = len(text) - len(text.lstrip()), len(text.rstrip())
    head = max(_overlap(token, body) for token in tokens)
    tail = max(_overlap(body, token) for token in tokens)
    text = text[: end - tail] + text[end - tail : end].translate(escape) + text[end:]
    return text[:begin] + text[begin : begin + head].translate(escape) + text[begin + head :]


def _overlap(left: str, right: str) -> int:
    """Return the length of the longest end of `left` that `right` begins with."""
    longest = min(len(left), len(right))
    return next((n for n in range(longest, 0, -1) if left.endswith(right[:n])), 0)


def _encode(tokenizer: Tokenizer, prompt: str, unescape: Mapping[int, str]) -> list[int]:
    ids: list[int] = []
    for index, part in enumerate(tokenizer.split(prompt)):
        if index % 2:
            ids.append(tokenizer.special_tokens[part])
        else:
            text = part.translate(unescape)
            ids += tokenizer.encode(text, add_bos=False, special_tokens_in_text=False)
    return ids
