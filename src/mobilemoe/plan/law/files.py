"""A law as a JSON file, so that a fit of one's own can take the place of the published one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from math import isfinite
from pathlib import Path
from typing import Any

from mobilemoe.atomic import atomic_write
from mobilemoe.errors import MobileMoEError
from mobilemoe.plan.law.dense import DenseLaw
from mobilemoe.plan.law.moe import MoELaw

FORMAT = "mobilemoe-law-1"
FORMS: Mapping[str, type[MoELaw] | type[DenseLaw]] = {"joint": MoELaw, "dense": DenseLaw}
TEXTS = ("source", "confidence")
GRIDS = ("active_grid", "token_grid", "expert_grid")
POSITIVE = ("a", "b", "unit_active", "unit_tokens", "num_experts")


def law_document(law: MoELaw | DenseLaw) -> dict[str, Any]:
    """Return `law` as a JSON document; `law_from_document` reads it back exactly."""
    form = "joint" if isinstance(law, MoELaw) else "dense"
    return {"format": FORMAT, "form": form, **asdict(law)}


def save_law(law: MoELaw | DenseLaw, path: Path) -> None:
    """Write `law` to `path`, whole or not at all.

    Raises:
        MobileMoEError: if the disk refuses.
    """
    atomic_write(path, json.dumps(law_document(law), indent=2, allow_nan=False) + "\n")


def load_law(path: str | Path) -> MoELaw | DenseLaw:
    """Read a law that `save_law` or `mobilemoe plan fit --out` wrote.

    Raises:
        MobileMoEError: if the file cannot be read, or a key is missing, unknown or no number.
    """
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise MobileMoEError(
            f"cannot read the law {path}: {error}",
            hint="a law is a JSON file that `mobilemoe plan fit --out` writes",
        ) from error
    return law_from_document(document, str(path))


def law_from_document(document: Any, where: str) -> MoELaw | DenseLaw:
    """Return the law of a JSON document that came from `where`.

    Raises:
        MobileMoEError: naming the key, its value and what is allowed.
    """
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise MobileMoEError(
            f"{where}: not a law: its format is not {FORMAT!r}",
            hint="give a file that `mobilemoe plan fit --out` wrote",
        )
    values = {key: value for key, value in document.items() if key not in ("format", "form")}
    kind = FORMS.get(str(document.get("form")))
    if kind is None:
        raise _wrong(where, "form", document.get("form"), "joint or dense")
    needed = {field.name for field in fields(kind)}
    if set(values) != needed:
        wrong = ", ".join(sorted(set(values) ^ needed))
        raise MobileMoEError(
            f"{where}: missing or unknown {wrong}", hint=f"needed are {', '.join(sorted(needed))}"
        )
    return kind(**{key: _value(where, key, value) for key, value in values.items()})


def _value(where: str, key: str, value: Any) -> Any:
    if key in TEXTS:
        if not isinstance(value, str):
            raise _wrong(where, key, value, "text")
        return value
    if key in GRIDS:
        return _grid(where, key, value)
    if not _is_number(value):
        raise _wrong(where, key, value, "a finite number")
    if value < 0 and key in ("c", "rmse"):
        raise _wrong(where, key, value, "a number from 0 up")
    if value <= 0 and key in POSITIVE:
        raise _wrong(where, key, value, "a positive number")
    return value


def _grid(where: str, key: str, value: Any) -> tuple[float, ...]:
    """Return a sweep's values, which must rise."""
    sound = isinstance(value, list) and bool(value) and all(map(_is_number, value))
    if not sound or value[0] <= 0 or sorted(set(value)) != value:
        raise _wrong(where, key, value, "a list of positive numbers in rising order")
    if key == "expert_grid" and value[0] < 1:
        raise _wrong(where, key, value, "numbers from 1 (dense) up")
    return tuple(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def _wrong(where: str, key: str, value: Any, allowed: str) -> MobileMoEError:
    return MobileMoEError(f"{where}: {key} is {value!r}; allowed: {allowed}", hint=f"correct {key}")
