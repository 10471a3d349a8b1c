"""Overrides: `pretrain.lr=3e-4` changes one value of a recipe before it is checked."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from mobilemoe.config import ModelConfig
from mobilemoe.errors import MobileMoEError
from mobilemoe.recipe.checks import nearest
from mobilemoe.recipe.schema import Source
from mobilemoe.recipe.stage import STAGE_NAMES
from mobilemoe.recipe.tables import RUNNING, STAGE_KEYS, TOP_KEYS, TRAINED, keys_of, model_from

_FORM = "give PATH=VALUE, for example pretrain.lr=3e-4, run.threads=1 or seed=3"


@dataclass(frozen=True)
class Override:
    """One changed value: the path of its key, and what it becomes (None: the key is removed)."""

    path: tuple[str, ...]
    value: Any
    text: str


def parse_override(text: str) -> Override:
    """Return what "PATH=VALUE" says.

    VALUE is written as in the file; a word without quotes is a text (`pretrain.schedule=linear`),
    nothing at all removes the key (`sft.capacity_factor=`).

    Raises:
        MobileMoEError: if there is no path or no "=", or the value is not one value of TOML.
    """
    left, equals, right = text.partition("=")
    path = tuple(part.strip() for part in left.split("."))
    if not equals or not all(path):
        raise MobileMoEError(f"override {text!r} is not PATH=VALUE", hint=_FORM)
    return Override(path, _value(text, right.strip()), text)


def _value(text: str, written: str) -> Any:
    if not written:
        return None
    try:
        content = tomllib.loads(f"value = {written}")
    except (tomllib.TOMLDecodeError, RecursionError):
        content = {}
    if list(content) == ["value"]:
        return content["value"]
    if any(character in written for character in "\"'[]{}=\n\r"):
        raise MobileMoEError(f"override {text!r}: the value is not TOML", hint=_FORM)
    return written


def apply_overrides(content: Mapping[str, Any], overrides: Sequence[Override]) -> dict[str, Any]:
    """Return a file's content with the overrides applied in order; `content` stays.

    Raises:
        MobileMoEError: if a path leads nowhere, with the nearest known spelling as its hint.
    """
    changed: dict[str, Any] = dict(content)
    for override in overrides:
        _check_path(changed, override)
        changed = _with(changed, override.path, override.value)
    return changed


def _check_path(content: Mapping[str, Any], override: Override) -> None:
    for depth, key in enumerate(override.path):
        above = override.path[:depth]
        known = _known_keys(content, above)
        place = f"[{'.'.join(above)}]" if above else "a recipe"
        if not known:
            raise MobileMoEError(
                f"override {override.text!r}: {'.'.join(above)} has no parts",
                hint=f"give {'.'.join(above)}=VALUE",
            )
        if key not in known:
            raise MobileMoEError(
                f"override {override.text!r}: {place} has no {key!r}", hint=nearest(key, known)
            )


def _known_keys(content: Mapping[str, Any], path: tuple[str, ...]) -> tuple[str, ...]:
    """Return the keys that may follow `path`; none if it is a value."""
    sources = content.get("sources", {})
    names = tuple(sources) if isinstance(sources, Mapping) else ()
    match path:
        case ():
            return TOP_KEYS
        case ("model",):
            return keys_of(ModelConfig)
        case ("sources",):
            return names
        case ("sources", _):
            return keys_of(Source)
        case (table,) if table in TRAINED or table in RUNNING:
            return keys_of({**TRAINED, **RUNNING}[table])
        case (stage,) if stage in STAGE_NAMES:
            return STAGE_KEYS
        case (stage, "mixture") if stage in STAGE_NAMES:
            return names
    return ()


def _with(table: Any, path: tuple[str, ...], value: Any) -> Any:
    """Return `table` with the value at `path` replaced, or removed if it is None."""
    key, *rest = path
    if key == "model" and rest and isinstance(table.get(key), str):
        shape = model_from(table[key])
        table = table | {key: {f.name: getattr(shape, f.name) for f in fields(shape)}}
    if rest:
        inner = table.get(key, {})
        if not isinstance(inner, Mapping):
            raise MobileMoEError(f"{key} is {inner!r}; allowed: a table, [{key}]")
        return table | {key: _with(dict(inner), tuple(rest), value)}
    if value is None:
        return {name: item for name, item in table.items() if name != key}
    return table | {key: value}
