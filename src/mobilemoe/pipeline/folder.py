"""The folder of a run: where things are, and whose it is.

recipe.toml is the recipe with every override applied, run.json says which one it is and where
it ran. data/ holds tokenizer and shards, stages/STAGE/ state.safetensors, metrics.jsonl and
heldout.json. The checkpoints are base/ (BF16, after midtrain), sft/ (BF16) and model/ (INT4,
after qat); report.html is made by `mobilemoe train --report`.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from mobilemoe.atomic import atomic_write
from mobilemoe.errors import MobileMoEError
from mobilemoe.profile.machine import this_machine
from mobilemoe.recipe import Recipe, difference, dump_recipe, load_recipe, recipe_id


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run."""

    path: Path

    @property
    def recipe(self) -> Path:
        """The resolved recipe."""
        return self.path / "recipe.toml"

    @property
    def data(self) -> Path:
        """Tokenizer and shards."""
        return self.path / "data"

    def stage(self, name: str) -> Path:
        """State, metrics and held-out losses of one stage."""
        return self.path / "stages" / name

    def is_done(self, name: str) -> bool:
        """Whether stage `name` has been trained to its end."""
        return "after" in self.heldout(name)

    def heldout(self, name: str) -> dict[str, dict[str, float]]:
        """Return the held-out losses of a stage: "before" and, when it is done, "after"."""
        path = self.stage(name) / "heldout.json"
        if not path.exists():
            return {}
        values: dict[str, dict[str, float]] = json.loads(path.read_text(encoding="utf-8"))
        return values

    def keep_heldout(self, name: str, key: str, losses: dict[str, float]) -> None:
        """Add the losses "before" or "after" stage `name`."""
        values = self.heldout(name) | {key: losses}
        atomic_write(self.stage(name) / "heldout.json", json.dumps(values, indent=1) + "\n")


def claim(path: Path, recipe: Recipe, resume: bool) -> RunFolder:
    """Make `path` the folder of `recipe`, or go on in it.

    How a run uses its machine may change between starts; what it trains may not.

    Raises:
        MobileMoEError: if a run is there and `resume` is False, or it is of another recipe.
    """
    folder = RunFolder(path)
    if folder.recipe.exists():
        if not resume:
            raise MobileMoEError(
                f"{path} holds a run already",
                hint="--resume goes on with it, --out NEW_FOLDER starts another",
            )
        _check_same(path, load_recipe(folder.recipe), recipe)
    elif path.exists() and any(path.iterdir()):
        raise MobileMoEError(
            f"{path} is not empty and holds no run", hint="--out NEW_FOLDER starts one"
        )
    else:
        atomic_write(path / "run.json", json.dumps(_identity(recipe), indent=1) + "\n")
    atomic_write(folder.recipe, dump_recipe(recipe))
    return folder


def _check_same(path: Path, old: Recipe, new: Recipe) -> None:
    if recipe_id(old) == recipe_id(new):
        return
    changes = "; ".join(map(str, difference(old, new)))
    raise MobileMoEError(
        f"{path} holds a run of another recipe; different: {changes}",
        hint="go on with the recipe that is saved there (recipe.toml), or choose another --out",
    )


def _identity(recipe: Recipe) -> dict[str, object]:
    return {
        "name": recipe.name,
        "recipe_id": recipe_id(recipe),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": sys.version.split()[0],
        "machine": asdict(this_machine()),
    }
