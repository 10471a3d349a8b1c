"""What a check of this machine finds: lines with their evidence, and problems."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# measured: read from the system or tried out just now. derived: computed from what was measured
# or from a model's shape. policy: a choice or a rule. unknown: the system does not say.
Tag = Literal["measured", "derived", "policy", "unknown"]
Severity = Literal["error", "warning"]
Value = str | int | float | None


@dataclass(frozen=True)
class Line:
    """One finding. `topic` and `name` are stable keys; `unit` is "B" for bytes.

    The value is None exactly when the tag is "unknown".
    """

    topic: str
    name: str
    value: Value
    tag: Tag
    note: str = ""
    unit: str = ""


@dataclass(frozen=True)
class Problem:
    """Something to act on. An error means that the engine cannot be trusted or used."""

    severity: Severity
    what: str
    hint: str


def measured(topic: str, name: str, value: Value, note: str = "", unit: str = "") -> Line:
    """Return a measured line, or an unknown one if there is no value."""
    if value is None or value == "":
        return Line(topic, name, None, "unknown", note, unit)
    return Line(topic, name, value, "measured", note, unit)
