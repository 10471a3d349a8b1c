"""Imports point one way, `__all__` is the truth, and the base stays light and off the network."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1] / "src" / "mobilemoe"

# A room may import rooms of a lower level, and itself. Two rooms of one level do not mix.
LEVELS = (
    ("errors",),
    ("atomic",),
    ("page",),
    ("weights",),
    ("config",),
    ("presets",),
    ("recipe",),
    ("kernels",),
    ("plan", "quant", "data"),
    ("checkpoint",),
    ("model", "engine"),
    ("export",),
    ("train", "evaluate", "profile", "serve", "verify"),
    ("pipeline", "sweep"),
    ("demo",),
    ("cli",),
    ("__main__",),
)
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
# The package itself is the users' face: `mobilemoe.load` reaches the engine when called.
FACE = "mobilemoe"
FACE_SEES = {"config", "errors", "engine"}
# The methods `preset` and `dense_twin`, when called; a name in type annotations.
UPWARD = {("config", "presets"), ("weights", "config")}
# Lower in the order and still none of their business.
FORBIDDEN = {("engine", "plan"), ("engine", "data"), ("checkpoint", "plan")}
TORCH_ROOMS = {
    "kernels",
    "quant",
    "model",
    "train",
    "evaluate",
    "pipeline",
    "sweep",
    "demo",
    "verify",
}
NETWORK = {"huggingface_hub", "urllib3", "requests", "httpx", "httpx2", "aiohttp"}


def sources() -> Iterator[tuple[str, Path]]:
    """Yield each source file with its room."""
    for path in sorted(ROOT.rglob("*.py")):
        first = path.relative_to(ROOT).parts[0].removesuffix(".py")
        yield (FACE if first == "__init__" else first), path


def imported(path: Path) -> Iterator[tuple[str, int]]:
    """Yield every absolute module name that `path` imports anywhere, with its line."""
    package = ["mobilemoe", *path.relative_to(ROOT).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield f"{module}.{alias.name}", node.lineno


def room_of(module: str) -> str | None:
    """Return the room that `module` belongs to; None if it is not ours."""
    parts = module.split(".")
    if parts[0] != "mobilemoe":
        return None
    return parts[1] if len(parts) > 1 and parts[1] in LEVEL else FACE


def allowed(importer: str, target: str) -> bool:
    """Whether `importer` may see `target`."""
    if importer == target or (importer, target) in UPWARD:
        return True
    if (importer, target) in FORBIDDEN:
        return False
    if importer == FACE:
        return target in FACE_SEES
    if target == FACE:
        return importer in ("demo", "cli")
    return LEVEL[target] < LEVEL[importer]


def test_every_room_has_its_place_in_the_order() -> None:
    rooms = {room for room, _ in sources()}
    assert rooms - {FACE} <= set(LEVEL), "a new room needs a level"
    assert {"config", "plan", "quant", "checkpoint", "model", "engine", "cli"} <= rooms


def test_imports_point_one_way() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {room} imports {target}"
        for room, path in sources()
        for module, line in imported(path)
        if (target := room_of(module)) is not None and not allowed(room, target)
    ]
    assert wrong == []


def test_only_training_rooms_import_torch() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}"
        for room, path in sources()
        for module, line in imported(path)
        if module.split(".")[0] == "torch" and room not in TORCH_ROOMS
    ]
    assert wrong == []


def test_only_checkpoint_and_serve_import_network_libraries() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}"
        for room, path in sources()
        for module, line in imported(path)
        if module.split(".")[0] in NETWORK | {"socket", "http"}
        and room not in ("checkpoint", "serve")
    ]
    assert wrong == []


@pytest.mark.parametrize(
    "module",
    [
        "mobilemoe",
        "mobilemoe.engine",
        "mobilemoe.checkpoint",
        "mobilemoe.plan",
        "mobilemoe.verify",
        "mobilemoe.cli",
    ],
)
def test_importing_loads_no_torch_and_opens_no_connection(module: str) -> None:
    code = (
        "import json, sys\n"
        "seen = []\n"
        "sys.addaudithook(lambda event, _: seen.append(event) if event.startswith('socket.') "
        "else None)\n"
        f"import {module}\n"
        "print(json.dumps([sorted({name.split('.')[0] for name in sys.modules}), seen]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded, events = json.loads(done.stdout)
    assert "mobilemoe" in loaded
    assert set(loaded) & (NETWORK | {"torch"}) == set()
    assert events == []


def packages() -> list[str]:
    """Return the face and every room that is a package."""
    rooms = sorted(room for room in LEVEL if (ROOT / room / "__init__.py").is_file())
    return [FACE, *(f"{FACE}.{room}" for room in rooms)]


def public_names(module: ModuleType) -> set[str]:
    """Return the public names of `module`, without typing helpers and its own submodules.

    A submodule becomes an attribute as soon as anybody imports it, so it counts only when
    `__all__` names it.
    """
    named = set(getattr(module, "__all__", []))
    return {
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and name not in ("annotations", "TYPE_CHECKING")
        and (name in named or not is_submodule(module, value))
    }


def is_submodule(module: ModuleType, value: object) -> bool:
    """Whether `value` is a module inside the package `module`."""
    return isinstance(value, ModuleType) and value.__name__.startswith(f"{module.__name__}.")


@pytest.mark.parametrize("name", packages())
def test_all_is_the_public_namespace(name: str) -> None:
    module = importlib.import_module(name)
    declared = getattr(module, "__all__", [])
    assert len(set(declared)) == len(declared)
    assert set(declared) == public_names(module)
