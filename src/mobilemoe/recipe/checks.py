"""Types and ranges of the parts of a recipe: one message form for every value that is refused."""

from __future__ import annotations

import re
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from mobilemoe.errors import MobileMoEError

_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
# A name is a key in TOML, a part of `--set a.b=c` and of file names.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_NAME_ALLOWED = "letters, digits, - and _, beginning with a letter or digit"


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`; `above` leaves `low` itself out, `below` leaves `high`."""

    low: float
    high: float
    above: bool = False
    below: bool = False

    def __contains__(self, value: float) -> bool:
        """Whether `value` is inside; no range holds NaN."""
        over = value > self.low if self.above else value >= self.low
        return over and (value < self.high if self.below else value <= self.high)

    def __str__(self) -> str:
        low = f"above {self.low:,}," if self.above else f"{self.low:,} to"
        high = "below" if self.below else "at most" if self.above else ""
        return " ".join([low, high, f"{self.high:,}"]).replace("  ", " ")


def require(condition: bool, path: str, value: object, allowed: str, hint: str = "") -> None:
    """Refuse the value of the field `path` ("pretrain.lr") unless `condition` holds.

    Raises:
        MobileMoEError: naming the field, its value and what is allowed.
    """
    if not condition:
        remedy = hint or f"correct {path} in the recipe"
        raise MobileMoEError(f"{path} is {show(value)}; allowed: {allowed}", hint=remedy)


def show(value: object) -> str:
    """Return `value` as a recipe would spell it, long ones cut."""
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 100 else f"{text[:100]}..."


def check_fields(part: Any, table: str, ranges: Mapping[str, Range]) -> None:
    """Check every field of the dataclass `part` against its annotation and its range.

    `table` is where a recipe keeps the part, "" for the recipe itself.

    Raises:
        MobileMoEError: naming `table`.field, its value and what is allowed.
    """
    hints = field_types(part.__class__)
    for field in fields(part):
        value, path = getattr(part, field.name), f"{table}.{field.name}".lstrip(".")
        if not _has_type(value, hints[field.name]):
            require(False, path, value, _type_words(hints[field.name]))
        if field.name in ranges and value is not None:
            require(value in ranges[field.name], path, value, str(ranges[field.name]))


def check_name(path: str, name: str) -> None:
    """Refuse a name that cannot be a key, a path in an override and a part of a file name.

    Raises:
        MobileMoEError: naming `path`, the name and what is allowed.
    """
    require(_NAME.fullmatch(name) is not None, path, name, _NAME_ALLOWED)


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Return a hint for a misspelt `name`: the nearest of `allowed`, or all of them."""
    known = list(allowed)
    close = get_close_matches(name.lower(), known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"allowed: {', '.join(known)}"


@cache
def field_types(part: type) -> Mapping[str, Any]:
    """Return the resolved annotation of every field of a dataclass."""
    return get_type_hints(part)


def _has_type(value: object, hint: Any) -> bool:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_has_type(value, one) for one in inner)
    if origin is Literal:
        return isinstance(value, str) and value in inner
    if origin is tuple:
        return isinstance(value, tuple) and all(_has_type(item, inner[0]) for item in value)
    if origin is not None:  # a mapping from names
        return isinstance(value, Mapping) and all(
            _has_type(key, inner[0]) and _has_type(item, inner[1]) for key, item in value.items()
        )
    if hint is float:
        return type(value) in (int, float)
    if hint is str:
        return isinstance(value, str) and _is_unicode(value)
    return type(value) is hint


def _is_unicode(text: str) -> bool:
    """Whether `text` can be written to a file: it has no half of a surrogate pair."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _type_words(hint: Any) -> str:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        words = [_type_words(one) for one in inner if one is not type(None)]
        return f"{' or '.join(words)}, or left out"
    if origin is Literal:
        return ", ".join(map(repr, inner))
    if origin is tuple:
        return "a list of texts" if inner[0] is str else f"a list: {_type_words(inner[0])} each"
    if origin is not None:
        return f"a table, each value {_type_words(inner[1])}"
    return _WORDS.get(hint, str(hint.__name__))
