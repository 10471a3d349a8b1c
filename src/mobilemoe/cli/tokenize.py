"""`mobilemoe tokenize`: what a model reads of a text, token by token."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mobilemoe.cli.output import JsonOption, print_json, print_table
from mobilemoe.cli.stdin import not_utf8
from mobilemoe.errors import MobileMoEError

if TYPE_CHECKING:
    from mobilemoe.checkpoint import Tokenizer, TokenSpan

TOKENIZE_EXAMPLES = (
    "\b\nExamples:\n"
    '  mobilemoe tokenize path/to/checkpoint "Hello, MobileMoE!" --explain\n'
    "  mobilemoe tokenize path/to/tokenizer.json --json < file.txt\n"
    '  mobilemoe tokenize path/to/checkpoint "Hi there" --chat --explain'
)
STDIN = "-"


@dataclass(frozen=True)
class Reading:
    """A text as the model reads it; `prompt` is `text`, or the chat around it."""

    text: str
    prompt: str
    spans: tuple[TokenSpan, ...]
    bos_added: bool

    @property
    def bytes_per_token(self) -> float | None:
        """Mean length of the tokens that are not special; None if there are none."""
        sizes = [span.end - span.start for span in self.spans if not span.special]
        return sum(sizes) / len(sizes) if sizes else None


def tokenize(
    path: Annotated[
        str, typer.Argument(metavar="PATH", help="A checkpoint folder, hub id or tokenizer.json.")
    ],
    text: Annotated[
        str, typer.Argument(metavar="TEXT", help="The text; - or nothing reads stdin.")
    ] = STDIN,
    explain: Annotated[bool, typer.Option("--explain", help="Show every token in a row.")] = False,
    chat: Annotated[
        bool, typer.Option("--chat", help="Put TEXT into the chat template as a user's message.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Print the token ids of a text, as `generate` (or, with --chat, `chat`) feeds them."""
    content = _stdin() if text == STDIN else text
    reading = read(path, content, chat)
    if as_json:
        print_json(document(reading, chat, explain))
    elif explain:
        print_table("tokens", HEADER, [_row(i, span) for i, span in enumerate(reading.spans)])
        print(summary(reading))
    else:
        print(" ".join(str(span.id) for span in reading.spans))
        print(summary(reading), file=sys.stderr)


def read(place: str, text: str, chat: bool) -> Reading:
    """Tokenise `text` with the tokenizer at `place`: a folder, a file, or a hub id.

    Raises:
        MobileMoEError: if there is no tokenizer or (with `chat`) no chat template, or if `text`
            is not valid Unicode.
    """
    from mobilemoe.checkpoint import ChatFormat, Tokenizer, token_spans
    from mobilemoe.checkpoint.hub import fetch, is_hub_id
    from mobilemoe.checkpoint.place import hint_for
    from mobilemoe.checkpoint.shipped import is_shipped, shipped_folder

    path = fetch(place, weights=False) if is_hub_id(place) else Path(place)
    path = shipped_folder() if is_shipped(place) else path
    if not path.exists():
        raise MobileMoEError(
            f"no folder or file at {place}",
            hint=hint_for(place, "give a checkpoint folder, or a tokenizer.json"),
        )
    tokenizer = Tokenizer.from_file(path) if path.is_file() else Tokenizer.from_folder(path)
    if not chat:
        ids = tokenizer.encode(text)
        bos_added = _begins_with_bos(tokenizer, ids) and ids != tokenizer.encode(text, False)
        return Reading(text, text, tuple(token_spans(tokenizer, ids, bos_added)), bos_added)
    chat_format = ChatFormat.from_folder(path.parent if path.is_file() else path)
    messages = [{"role": "user", "content": text}]
    prompt, ids = chat_format.render(messages), chat_format.encode(tokenizer, messages)
    spans = tuple(token_spans(tokenizer, ids))
    return Reading(text, prompt, spans, _begins_with_bos(tokenizer, ids))


def _begins_with_bos(tokenizer: Tokenizer, ids: list[int]) -> bool:
    return tokenizer.bos_id is not None and ids[:1] == [tokenizer.bos_id]


def _stdin() -> str:
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise not_utf8(error) from error


HEADER = ("", "id", "token", "kind", "bytes")


def _row(index: int, span: TokenSpan) -> tuple[str, ...]:
    kind = "special" if span.special else ""
    where = f"{span.start}-{span.end}" if span.end > span.start else "not in the text"
    return str(index), str(span.id), shown(span), kind, where


def shown(span: TokenSpan) -> str:
    """Return the token for reading: quoted text, or the bytes of what is part of a character."""
    text = span.text
    return repr(text) if text is not None else f"bytes {span.raw.hex(' ')}"


def summary(reading: Reading) -> str:
    """Return one line: how many tokens, how long they are, and whether BOS was added."""
    count, mean = len(reading.spans), reading.bytes_per_token
    special = sum(span.special for span in reading.spans)
    parts = [f"{count} token{'' if count == 1 else 's'}, {special} of them special"]
    parts += [f"{mean:.2f} bytes per other token"] if mean is not None else []
    return "; ".join([*parts, "BOS added" if reading.bos_added else "no BOS added"])


def document(reading: Reading, chat: bool, explain: bool) -> dict[str, Any]:
    """Return the JSON document; `tokens` is there with --explain, `prompt` with --chat."""
    values: dict[str, Any] = {
        "text": reading.text,
        "ids": [span.id for span in reading.spans],
        "token_count": len(reading.spans),
        "text_bytes": len(reading.text.encode()),
        "bytes_per_token": reading.bytes_per_token,
        "bos_added": reading.bos_added,
    }
    if chat:
        values["prompt"] = reading.prompt
    if explain:
        values["tokens"] = [_token(index, span) for index, span in enumerate(reading.spans)]
    return values


def _token(index: int, span: TokenSpan) -> dict[str, Any]:
    return {
        "index": index,
        "id": span.id,
        "text": span.text,
        "bytes": span.raw.hex(),
        "special": span.special,
        "start": span.start,
        "end": span.end,
    }
