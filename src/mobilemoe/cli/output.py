"""Where the verbs put their results: one JSON document or a table on stdout."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

PIPE_WIDTH = 160  # of tables that go to a file or another program
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON document and nothing else.")
]


def print_json(document: dict[str, Any]) -> None:
    """Print `document` on stdout, refusing NaN, which is not JSON."""
    print(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))


def print_table(title: str, header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Print a table whose first column names the rows."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for name in header:
        table.add_column(name, overflow="fold")  # a narrow terminal wraps, nothing is cut off
    for row in rows:
        table.add_row(*row)
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPE_WIDTH
    Console(highlight=False, markup=False, emoji=False, width=width).print(table)
