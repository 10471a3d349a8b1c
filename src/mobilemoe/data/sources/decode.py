"""From a raw record to a text or a conversation, or the reason why not.

`messages_field` names a field with a list of turns: {role, content}, or {from, value} with the
speakers human and gpt. Two fields in the form "question -> answer" make a conversation of one
turn each; the left one may also hold a list of turns.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mobilemoe.data.sources.records import BadRecord, Record, Sample, Turn
from mobilemoe.recipe import Source

ROLES = ("system", "user", "assistant", "tool")
ARROW = "->"

_SPEAKERS = {"human": "user", "gpt": "assistant", "chatgpt": "assistant"}


class _Refused(Exception):  # noqa: N818  it never leaves this file
    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


def fields_of(source: Source) -> tuple[str, ...]:
    """Return the fields of a row that the source uses; none for plain text."""
    if source.messages_field is not None:
        return tuple(part.strip() for part in source.messages_field.split(ARROW, 1))
    return (source.text_field,) if source.text_field is not None else ()


def decode(record: Record, source: Source) -> Sample | BadRecord:
    """Return what the source's fields hold, checked; conversations have their texts stripped."""
    try:
        if source.kind == "txt":
            return Sample(record.place, _text(_utf8(record.payload), "the text"))
        row = _row(record.payload)
        names = fields_of(source)
        if source.messages_field is None:
            return Sample(record.place, _text(_field(row, names[0]), f"field {names[0]!r}"))
        return Sample(record.place, turns=_turns(row, names))
    except _Refused as refused:
        return BadRecord(record.place, refused.reason, refused.detail)


def _utf8(payload: object) -> str:
    assert isinstance(payload, bytes)
    try:
        return payload.decode()
    except UnicodeDecodeError as error:
        raise _Refused("not UTF-8", f"at byte {error.start} of the record") from None


def _row(payload: object) -> Mapping[str, Any]:
    row = _json(_utf8(payload)) if isinstance(payload, bytes) else payload
    if not isinstance(row, Mapping):
        raise _Refused("not a JSON object", f"it is {_kind(row)}")
    return row


def _json(line: str) -> object:
    try:
        return json.loads(line.rstrip())
    except json.JSONDecodeError as error:
        raise _Refused("not JSON", f"{error.msg} at character {error.pos}") from None
    except (RecursionError, ValueError) as error:  # nested too deeply; a number too long
        raise _Refused("not JSON", str(error)) from None


def _field(row: Mapping[str, Any], name: str) -> object:
    if name not in row:
        raise _Refused(f"no field {name!r}", f"it has: {', '.join(map(repr, list(row)[:8]))}")
    return row[name]


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise _Refused(f"{what} is not text", f"it is {_kind(value)}")
    if "\0" in value:
        raise _Refused("NUL character", f"at character {value.index(chr(0))} of {what}")
    if not value.strip():
        raise _Refused(f"{what} is empty")
    if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
        raise _Refused("half a surrogate pair", f"in {what}")
    return value


def _turns(row: Mapping[str, Any], names: tuple[str, ...]) -> tuple[Turn, ...]:
    value = _field(row, names[0])
    turns = _asked(value, names) if len(names) == 2 else _listed(value, names[0])
    if len(names) == 2:
        answer = _text(_field(row, names[1]), f"field {names[1]!r}")
        turns.append(Turn("assistant", answer.strip()))
    _check_order(turns)
    return tuple(turns)


def _asked(value: object, names: tuple[str, ...]) -> list[Turn]:
    if isinstance(value, list):
        return _listed(value, names[0])
    return [Turn("user", _text(value, f"field {names[0]!r}").strip())]


def _listed(value: object, name: str) -> list[Turn]:
    if not isinstance(value, list):
        raise _Refused(f"field {name!r} is not a list of turns", f"it is {_kind(value)}")
    return [_turn(item, number) for number, item in enumerate(value)]


def _turn(item: object, number: int) -> Turn:
    if not isinstance(item, Mapping):
        raise _Refused("a turn is not an object", f"turn {number} is {_kind(item)}")
    role = item.get("role", item.get("from"))
    role = _SPEAKERS.get(role, role) if isinstance(role, str) else role
    if role not in ROLES:
        detail = f"turn {number} has {str(role)[:40]!r}; allowed: {', '.join(ROLES)}"
        raise _Refused("a turn without a known role", detail)
    content = item.get("content", item.get("value"))
    return Turn(role, _text(content, "the content of a turn").strip())


def _check_order(turns: list[Turn]) -> None:
    if not any(turn.role == "assistant" for turn in turns):
        raise _Refused("no turn of the assistant", f"{len(turns)} turns")
    if any(turn.role == "system" for turn in turns[1:]):
        raise _Refused("a system turn after the first turn")


def _kind(value: object) -> str:
    return "null" if value is None else type(value).__name__
