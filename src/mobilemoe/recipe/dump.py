"""Writing a recipe: the TOML text that reads back as the same recipe.

Equal recipes give equal text: keys stand in a fixed order, names in alphabetical order.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from mobilemoe.recipe.checks import field_types
from mobilemoe.recipe.recipe import Recipe
from mobilemoe.recipe.schema import Source
from mobilemoe.recipe.stage import Stage
from mobilemoe.recipe.tables import (
    ACTIVATIONS,
    DISPATCHES,
    QUANTIZATIONS,
    RUNNING,
    STAGE_KEYS,
    TRAINED,
    keys_of,
)


def dump_recipe(recipe: Recipe) -> str:
    """Return `recipe` in TOML, everything written out; `parse_recipe` gives back an equal one."""
    content = content_of(recipe)
    lines = [line for key, value in content.items() for line in _entry((key,), value)]
    tables = [line for key, value in content.items() for line in _table((key,), value)]
    return "\n".join([*lines, *tables]) + "\n"


def content_of(recipe: Recipe) -> dict[str, Any]:
    """Return what a recipe file says, as nested tables in the order of the file.

    What is left out of a file (an optional value that is None) is left out here.
    """
    parts = {name: _fields(getattr(recipe, name)) for name in (*TRAINED, *RUNNING)}
    return {
        "name": recipe.name,
        "seed": recipe.seed,
        "tokenizer": recipe.tokenizer,
        "model": _fields(recipe.model),
        **{name: parts[name] for name in TRAINED},
        "sources": {name: _source(source) for name, source in sorted(recipe.sources.items())},
        **{stage.name: _stage(stage) for stage in recipe.stages},
        **{name: parts[name] for name in RUNNING},
    }


def _fields(part: Any) -> dict[str, Any]:
    """Return the values of a dataclass by key; a number that may be broken is a float."""
    values = {key: getattr(part, key) for key in keys_of(type(part))}
    hints = field_types(part.__class__)
    return {
        key: float(value) if _is_float(hints[key]) else value
        for key, value in values.items()
        if value is not None
    }


def _is_float(hint: Any) -> bool:
    return hint in (float, float | None)


def _source(source: Source) -> dict[str, Any]:
    values = _fields(source)
    if source.kind != "hf":
        del values["split"]
    return values


def _stage(stage: Stage) -> dict[str, Any]:
    same = _fields(stage)
    shares = {name: float(share) for name, share in sorted(stage.mixture.items())}
    translated = {
        "mixture": shares,
        "dispatch": DISPATCHES[stage.capacity_factor is None],
        "quantization": _word(QUANTIZATIONS, stage.fake_quant),
        "activations": _word(ACTIVATIONS, stage.int8_activations),
    }
    values = same | translated
    return {key: values[key] for key in STAGE_KEYS if key in values}


def _word(words: Mapping[str, bool], value: bool) -> str:
    return next(word for word, meaning in words.items() if meaning == value)


def _entry(path: tuple[str, ...], value: Any) -> Iterator[str]:
    """Yield the line of a key, if its value is not a table."""
    if not isinstance(value, Mapping):
        yield f"{path[-1]} = {_written(value)}"


def _table(path: tuple[str, ...], value: Any) -> Iterator[str]:
    """Yield the lines of a table and of the tables in it."""
    if not isinstance(value, Mapping):
        return
    entries = [line for key, item in value.items() for line in _entry((*path, key), item)]
    if entries:
        yield from ("", f"[{'.'.join(path)}]", *entries)
    for key, item in value.items():
        yield from _table((*path, key), item)


def _written(value: Any) -> str:
    """Return a value as TOML spells it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:_}"
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, str):  # TOML's escapes are JSON's; it also wants DEL escaped
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return f"[{', '.join(map(_written, value))}]"
