"""The modules of this Python installation's standard library, as source and syntax tree.

Modules are found as files and read with `tokenize.open`; nothing is ever imported. What a
distribution leaves out is simply not there. Left out on purpose: tests, installed packages,
`encodings` (tables and one codec's boilerplate a hundred times), `pydoc_data` (read as help
topics instead) and `_sysconfigdata*` (generated from one machine's paths).
"""

from __future__ import annotations

import ast
import sysconfig
import tokenize
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mobilemoe.errors import MobileMoEError

SKIPPED_FOLDERS = frozenset(
    {
        "__pycache__",
        "site-packages",
        "dist-packages",
        "lib-dynload",
        "test",
        "tests",
        "idle_test",
        "encodings",
        "pydoc_data",
    }
)


@dataclass(frozen=True)
class Module:
    """One module: its dotted name, its source with plain newlines, and its tree."""

    name: str
    source: str
    tree: ast.Module


def stdlib_folder() -> Path:
    """Return the folder of the standard library's sources."""
    return Path(sysconfig.get_path("stdlib"))


def module_paths() -> list[Path]:
    """Return the source files of the corpus in name order.

    Raises:
        MobileMoEError: if this installation carries no sources (a zipped or stripped one).
    """
    root = stdlib_folder()
    paths = sorted(_walk(root), key=lambda path: path.relative_to(root).as_posix())
    if not paths:
        raise MobileMoEError(
            f"no standard library sources in {root}; the corpus is made of them",
            hint="use a Python installation that carries its .py files",
        )
    return paths


def _walk(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.is_dir():
            if path.name not in SKIPPED_FOLDERS and not path.is_symlink():
                yield from _walk(path)
        elif path.suffix == ".py" and not path.name.startswith(("_sysconfigdata", "test_")):
            yield path


def module_name(path: Path) -> str:
    """Return the dotted name of a standard library file."""
    parts = path.relative_to(stdlib_folder()).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def read_module(path: Path) -> Module | None:
    """Read and parse one file; None if it is not valid Python of this version."""
    try:
        with tokenize.open(path) as file:
            source = file.read()
        source = "\n".join(line.rstrip() for line in source.replace("\f", "").split("\n"))
        return Module(module_name(path), source, parse(source))
    except (SyntaxError, UnicodeDecodeError, ValueError):
        return None


def parse(source: str) -> ast.Module:
    """Parse without repeating the source's own warnings about its escapes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(source)
