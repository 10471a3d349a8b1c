"""The check that a dict is a report: keys, types, and lists that belong together."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from types import UnionType
from typing import (
    Any,
    Literal,
    NotRequired,
    cast,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from mobilemoe.demo.schema import SCHEMA_VERSION, Experts, Report, Stage
from mobilemoe.errors import MobileMoEError


def validate(report: Mapping[str, Any]) -> Report:
    """Return `report`, typed, if it is a complete report of this schema version.

    Raises:
        MobileMoEError: naming the first place that is wrong, what it holds and what is allowed.
    """
    version = report.get("schema")
    if type(version) is not int or version != SCHEMA_VERSION:
        raise MobileMoEError(
            f"report: schema is {version!r}; allowed: {SCHEMA_VERSION}",
            hint="run the demo again with this version of mobilemoe to make a new report",
        )
    _check(dict(report), Report, "report")
    checked = cast(Report, report)
    for index, stage in enumerate(checked.get("stages") or []):
        _check_curve(stage, f"report.stages[{index}].curve")
    _check_experts(checked.get("experts"))
    return checked


def _check(value: Any, kind: Any, where: str) -> None:
    origin = get_origin(kind)
    if is_typeddict(kind):
        _check_fields(value, kind, where)
    elif origin is NotRequired or (origin is UnionType and value is not None):
        _check(value, get_args(kind)[0], where)
    elif origin is Literal:
        if value not in get_args(kind):
            _fail(value, " or ".join(map(repr, get_args(kind))), where)
    elif origin in (list, dict):
        _check_type(value, origin, where)
        keyed = value.items() if origin is dict else enumerate(value)
        for key, item in keyed:
            place = f"{where}.{key}" if origin is dict else f"{where}[{key}]"
            _check(item, get_args(kind)[-1], place)
    elif origin is not UnionType:
        _check_type(value, kind, where)


def _check_fields(value: Any, kind: Any, where: str) -> None:
    _check_type(value, dict, where)
    hints = get_type_hints(kind, include_extras=True)
    optional = {name for name, hint in hints.items() if get_origin(hint) is NotRequired}
    missing = [name for name in hints if name not in optional and name not in value]
    unknown = [str(name) for name in value if name not in hints]
    if missing or unknown:
        what = f"missing key {missing[0]!r}" if missing else f"unknown key {unknown[0]!r}"
        raise MobileMoEError(f"{where}: {what}; allowed: {', '.join(hints)}")
    for name, item in value.items():
        _check(item, hints[name], f"{where}.{name}")


def _check_type(value: Any, kind: type, where: str) -> None:
    allowed = (int, float) if kind is float else (kind,)
    if type(value) not in allowed:
        _fail(value, "a number" if kind is float else f"a value of type {kind.__name__}", where)


def _fail(value: Any, allowed: str, where: str) -> None:
    text = repr(value)
    shown = text if len(text) <= 60 else f"{text[:57]}..."
    raise MobileMoEError(f"{where} is {shown}; allowed: {allowed}")


def _check_curve(stage: Stage, where: str) -> None:
    tokens, loss = stage["curve"]["tokens"], stage["curve"]["loss"]
    if len(tokens) != len(loss):
        _fail(f"{len(tokens)} tokens and {len(loss)} losses", "as many of each", where)
    if tokens and not (tokens[0] >= 0 and tokens[-1] <= stage["tokens"]):
        allowed = f"0 to {stage['tokens']}, counted from the start of the stage"
        _fail([tokens[0], tokens[-1]], allowed, f"{where}.tokens")
    if any(later < earlier for earlier, later in pairwise(tokens)):
        _fail("a falling sequence", "numbers that never fall", f"{where}.tokens")


def _check_experts(experts: Experts | None) -> None:
    for index, layer in enumerate(experts["share"] if experts else []):
        where = f"report.experts.share[{index}]"
        names = experts["domains"] if experts else []
        if len(layer) != len(names):
            _fail(f"{len(layer)} rows", f"{len(names)}, one for each domain", where)
        if len({len(row) for row in layer}) > 1:
            _fail("rows of unequal length", "one share for each expert", where)
