"""Reading a table of runs from a file: CSV or JSONL, checked value by value."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from math import isfinite
from pathlib import Path
from typing import Any

from mobilemoe.errors import MobileMoEError
from mobilemoe.plan.fit.runs import SELECTORS, TrainingRun

TRUE, FALSE = ("true", "yes", "1"), ("false", "no", "0")
NEEDED = tuple(field.name for field in fields(TrainingRun) if field.default is MISSING)


def read_runs(path: str | Path) -> tuple[TrainingRun, ...]:
    """Read a table of runs: CSV with a header, or JSONL with one object a line.

    Columns are the fields of `TrainingRun`; the first four are needed. A table may have more
    columns, which a fit has no use for.

    Raises:
        MobileMoEError: naming the row, the column, its value and what is allowed.
    """
    path = Path(path)
    readers: Mapping[str, Callable[[str, Path], list[tuple[int, Mapping[str, Any]]]]]
    readers = {".csv": _csv_rows, ".jsonl": _json_rows}
    if path.suffix not in readers:
        raise MobileMoEError(
            f"{path}: a table of runs is a .csv or a .jsonl file", hint="rename or convert it"
        )
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise MobileMoEError(f"cannot read {path}: {error}", hint="check the path") from error
    rows = readers[path.suffix](text, path)
    if not rows:
        raise MobileMoEError(f"{path}: no runs", hint="one run a line")
    return tuple(_run(row, f"{path}:{line}") for line, row in rows)


def _csv_rows(text: str, path: Path) -> list[tuple[int, Mapping[str, Any]]]:
    reader = csv.DictReader(io.StringIO(text))
    rows: list[tuple[int, Mapping[str, Any]]] = []
    for row in reader:
        if None in row or None in row.values():
            raise MobileMoEError(
                f"{path}:{reader.line_num}: not as many values as the header has columns",
                hint="correct the line",
            )
        rows.append((reader.line_num, {key: value for key, value in row.items() if value != ""}))
    return rows


def _json_rows(text: str, path: Path) -> list[tuple[int, Mapping[str, Any]]]:
    rows: list[tuple[int, Mapping[str, Any]]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise MobileMoEError(f"{path}:{number}: {error}", hint="one object a line") from error
        if not isinstance(row, dict):
            raise MobileMoEError(f"{path}:{number}: not an object", hint="one object a line")
        rows.append((number, {key: value for key, value in row.items() if value is not None}))
    return rows


def _run(row: Mapping[str, Any], where: str) -> TrainingRun:
    missing = [name for name in NEEDED if name not in row]
    if missing:
        raise MobileMoEError(
            f"{where}: no {', '.join(missing)}", hint=f"each run needs {', '.join(NEEDED)}"
        )
    values = {name: READ[name](row[name], name, where) for name in READ if name in row}
    return TrainingRun(**values)


def _positive(value: Any, name: str, where: str) -> float:
    try:
        number = float(value) if not isinstance(value, bool) else -1.0
    except (TypeError, ValueError):
        number = -1.0
    if not (isfinite(number) and number > 0):
        raise _wrong(where, name, value, "a positive number")
    return number


def _experts(value: Any, name: str, where: str) -> float:
    number = _positive(value, name, where)
    if number < 1:
        raise _wrong(where, name, value, "a number from 1 (dense) up")
    return number


def _whole(value: Any, name: str, where: str) -> int:
    try:
        number = int(str(value))
    except ValueError:
        number = -1
    if number < 0:
        raise _wrong(where, name, value, "a whole number from 0 up")
    return number


def _truth(value: Any, name: str, where: str) -> bool:
    text = str(value).lower()
    if text not in TRUE + FALSE:
        raise _wrong(where, name, value, "true or false")
    return text in TRUE


def _text(value: Any, name: str, where: str) -> str:
    return str(value)


READ: Mapping[str, Callable[[Any, str, str], Any]] = {
    "active_params": _positive,
    "tokens": _positive,
    "expert_equivalents": _experts,
    "loss": _positive,
    "granularity": _whole,
    "shared_expert": _truth,
    "seed": _whole,
    "total_params": _positive,
    "weight_bytes": _positive,
    "name": _text,
}


def _wrong(where: str, name: str, value: Any, allowed: str) -> MobileMoEError:
    return MobileMoEError(
        f"{where}: {name} is {value!r}; allowed: {allowed}", hint="correct or remove the run"
    )


def selector_value(name: str, text: str) -> Any:
    """Return the value of the selector `name` that a user wrote as `text`.

    Raises:
        MobileMoEError: if there is no such selector or the text is no value of it.
    """
    if name not in SELECTORS:
        raise MobileMoEError(f"cannot select by {name}", hint=f"allowed: {', '.join(SELECTORS)}")
    return READ[name](text, name, "selection")
