"""Reading a sweep: one TOML file, every key known, every run buildable."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mobilemoe.errors import MobileMoEError
from mobilemoe.recipe.tables import check_keys, keys_of
from mobilemoe.sweep.grid import Grid, Size, Sweep, SweepTraining

TOP_KEYS = ("name", "training", "sizes", "grids")


def load_sweep(path: Path) -> Sweep:
    """Return the sweep in the TOML file `path`.

    Raises:
        MobileMoEError: if it cannot be read; or naming the key, its value and what is allowed.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise MobileMoEError(
            f"cannot read the sweep {path}: {error}", hint="try recipes/sweep_nano.toml"
        ) from error
    return parse_sweep(text, str(path))


def parse_sweep(text: str, where: str = "sweep") -> Sweep:
    """Return the sweep that `text` spells in TOML; `where` names it in messages.

    Raises:
        MobileMoEError: naming `where`, the key, its value and what is allowed.
    """
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise MobileMoEError(f"{where} is not TOML: {error}") from error
    try:
        return _sweep(content)
    except MobileMoEError as error:
        raise MobileMoEError(f"{where}: {error.message}", error.hint) from error


def _sweep(content: Mapping[str, Any]) -> Sweep:
    check_keys("", content, TOP_KEYS, TOP_KEYS)
    check_keys("training", content["training"], keys_of(SweepTraining), keys_of(SweepTraining))
    return Sweep(
        name=content["name"],
        training=SweepTraining(**content["training"]),
        sizes={name: _size(name, table) for name, table in _tables(content, "sizes")},
        grids=tuple(_grid(name, table) for name, table in _tables(content, "grids")),
    )


def _tables(content: Mapping[str, Any], name: str) -> list[tuple[str, Any]]:
    value = content[name]
    if not isinstance(value, Mapping) or not value:
        raise MobileMoEError(f"{name} is {value!r}; allowed: tables, [{name}.NAME] each")
    return list(value.items())


def _size(name: str, table: Any) -> Size:
    keys = tuple(key for key in keys_of(Size) if key != "name")
    check_keys(f"sizes.{name}", table, keys, keys)
    return Size(name=name, **table)


def _grid(name: str, table: Any) -> Grid:
    keys = tuple(key for key in keys_of(Grid) if key != "name")
    check_keys(f"grids.{name}", table, keys, keys)
    for key in keys:
        if not isinstance(table[key], list) or not table[key]:
            raise MobileMoEError(
                f"grids.{name}.{key} is {table[key]!r}; allowed: a list, not empty",
                hint=f"write {key} = [{table[key]!r}]",
            )
    return Grid(name=name, **{key: tuple(table[key]) for key in keys})
