"""Reading a recipe: a TOML file or a built-in one, overrides, then every check."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mobilemoe.errors import MobileMoEError
from mobilemoe.recipe.checks import nearest
from mobilemoe.recipe.overrides import apply_overrides, parse_override
from mobilemoe.recipe.recipe import Recipe
from mobilemoe.recipe.tables import recipe_from

BUILT_IN = Path(__file__).parents[1] / "recipes"  # the package's copy of the folder recipes/
SWEEPS = "sweep_"  # files that begin so are grids of many runs, for `mobilemoe plan sweep`


def builtin_recipes() -> tuple[str, ...]:
    """Return the names of the recipes that come with the package."""
    names = (path.stem for path in BUILT_IN.glob("*.toml"))
    return tuple(sorted(name for name in names if not name.startswith(SWEEPS)))


def load_recipe(path_or_name: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Return the recipe in a TOML file, or the built-in one of that name ("nano"; any case).

    `overrides` are "PATH=VALUE" each, see `parse_override`; they are applied in order, before
    anything is checked. A file that exists goes before a built-in name.

    Raises:
        MobileMoEError: if there is no such recipe or it cannot be read; or naming the file, the
            key, its value and what is allowed.
    """
    path = _find(path_or_name)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise MobileMoEError(f"cannot read the recipe {path}: {error}") from error
    return parse_recipe(text, overrides, where=str(path_or_name))


def parse_recipe(text: str, overrides: Sequence[str] = (), where: str = "recipe") -> Recipe:
    """Return the recipe that `text` spells in TOML; `where` names it in messages.

    Raises:
        MobileMoEError: naming `where`, the key, its value and what is allowed.
    """
    changes = [parse_override(override) for override in overrides]
    content = apply_overrides(_content(text, where), changes)
    if changes:
        where = f"{where} with {', '.join(change.text for change in changes)}"
    try:
        return recipe_from(content)
    except MobileMoEError as error:
        raise MobileMoEError(f"{where}: {error.message}", error.hint) from error


def _find(path_or_name: str | Path) -> Path:
    path = Path(path_or_name)
    if path.is_file():
        return path
    names, asked = builtin_recipes(), str(path_or_name)
    if asked.lower() in names:
        return BUILT_IN / f"{asked.lower()}.toml"
    raise MobileMoEError(
        f"no recipe {asked!r}; allowed: a TOML file, or one of {', '.join(names)}",
        hint=nearest(path.stem, names),
    )


def _content(text: str, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise MobileMoEError(f"{where} is not TOML: {error}", hint=_SYNTAX) from error
    except RecursionError as error:
        raise MobileMoEError(f"{where} is not a recipe: it is nested too deeply") from error


_SYNTAX = "texts stand in quotes, a table begins with its name in brackets: https://toml.io"
