"""Which recipes train the same weights: the identity of a run, and what changed between two.

How a run uses its machine (`run`, `guard`, `parallel`) and what only people read (names of the
recipe, purposes, licences) is not part of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from mobilemoe.recipe.checks import show
from mobilemoe.recipe.dump import content_of
from mobilemoe.recipe.recipe import Recipe
from mobilemoe.recipe.stage import STAGE_NAMES
from mobilemoe.recipe.tables import RUNNING

_NOT_TRAINED = ("name", *RUNNING)
_ONLY_READ = ("purpose", "for_domains", "licence")


@dataclass(frozen=True)
class Change:
    """A value that two recipes do not share; None where one of them has no such key."""

    path: str
    before: Any
    after: Any

    def __str__(self) -> str:
        before = "absent" if self.before is None else show(self.before)
        after = "absent" if self.after is None else show(self.after)
        return f"{self.path}: {before} -> {after}"


def recipe_id(recipe: Recipe) -> str:
    """Return 64 hexadecimal digits that are equal for recipes that train the same weights."""
    return sha256(json.dumps(trained_values(recipe), sort_keys=True).encode()).hexdigest()


def difference(before: Recipe, after: Recipe) -> tuple[Change, ...]:
    """Return every value that decides the weights and changed; none if the ids are equal."""
    old, new = trained_values(before), trained_values(after)
    paths = [*old, *(path for path in new if path not in old)]
    return tuple(
        Change(path, old.get(path), new.get(path))
        for path in paths
        if old.get(path) != new.get(path)
    )


def trained_values(recipe: Recipe) -> dict[str, Any]:
    """Return every value that decides the weights, by its path ("pretrain.mixture.code")."""
    content = content_of(recipe)
    for table in (*content["sources"].values(), *(content[name] for name in STAGE_NAMES)):
        for key in _ONLY_READ:
            table.pop(key, None)
    return dict(_leaves("", {key: content[key] for key in content if key not in _NOT_TRAINED}))


def _leaves(above: str, table: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        path = f"{above}.{key}" if above else key
        if isinstance(value, Mapping):
            yield from _leaves(path, value)
        else:
            yield path, value
