"""Train events from JSON objects: typed by the events' own annotations, nothing ignored."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, Union, get_args, get_origin, get_type_hints

from mobilemoe.train.events import (
    Alarm,
    ExpertLoads,
    RolledBack,
    StepMetrics,
    StepSkipped,
    TrainEvent,
)

KINDS: Mapping[str, type[TrainEvent]] = {
    "step": StepMetrics,
    "loads": ExpertLoads,
    "skipped": StepSkipped,
    "rolled_back": RolledBack,
    "alarm": Alarm,
}
_NAMES = {event: name for name, event in KINDS.items()}
_HINTS = {name: get_type_hints(event) for name, event in KINDS.items()}
_NOT_FINITE = ("NaN", "Infinity", "-Infinity")


def kind_of(event: TrainEvent) -> str:
    """Return the name under which `event` is written."""
    return _NAMES[type(event)]


def event_from_dict(values: Mapping[str, Any]) -> TrainEvent:
    """Return the event whose name is `values["event"]` and whose fields are the rest.

    Raises:
        ValueError: naming the kind, or the field that is unknown, missing or of a wrong type.
    """
    kind = values.get("event")
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"event is {kind!r}; allowed: {', '.join(KINDS)}")
    event, hints = KINDS[kind], _HINTS[kind]
    unknown = sorted(set(values) - set(hints) - {"event"})
    if unknown:
        raise ValueError(f"{kind}: unknown field {unknown[0]!r}")
    optional = {field.name for field in fields(event) if field.default is not MISSING}
    missing = sorted(set(hints) - set(values) - optional)
    if missing:
        raise ValueError(f"{kind}: no field {missing[0]!r}")
    given = {name: hint for name, hint in hints.items() if name in values}
    return event(**{name: _typed(values[name], hint, name) for name, hint in given.items()})


def _typed(value: Any, hint: Any, name: str) -> Any:
    """Return the JSON value `value` as the annotation `hint` wants it."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        others = [choice for choice in inner if choice is not types.NoneType]
        return None if value is None else _typed(value, others[0], name)
    if origin is tuple and isinstance(value, list):
        return tuple(_typed(item, inner[0], name) for item in value)
    if origin is not None and issubclass(origin, Mapping) and isinstance(value, dict):
        return {key: _typed(item, inner[1], f"{name}.{key}") for key, item in value.items()}
    if hint is float and (type(value) in (int, float) or value in _NOT_FINITE):
        return float(value)
    if hint in (int, str) and type(value) is hint:
        return value
    raise ValueError(f"{name} is {value!r}")
