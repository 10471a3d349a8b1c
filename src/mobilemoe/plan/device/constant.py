"""A number that knows its unit and where it comes from."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from mobilemoe.errors import MobileMoEError

# Measured by this project's bench, published by somebody (or fitted to it), assumed or stated.
Origin = Literal["measured", "published", "assumed"]


@dataclass(frozen=True)
class Constant:
    """A finite number of at least 0, its unit, its origin, and in one sentence its source.

    Raises:
        MobileMoEError: naming the field, its value and what is allowed.
    """

    value: float
    unit: str
    origin: Origin
    source: str

    def __post_init__(self) -> None:
        number = type(self.value) in (int, float) and math.isfinite(self.value)
        _require(number and self.value >= 0, "value", self.value, "a number of at least 0")
        _require(self.origin in get_args(Origin), "origin", self.origin, _origins())
        for name in ("unit", "source"):
            text = getattr(self, name)
            _require(type(text) is str and text != "", name, text, "a text that is not empty")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return asdict(self)


def _origins() -> str:
    return ", ".join(map(repr, get_args(Origin)))


def _require(condition: bool, name: str, value: object, allowed: str) -> None:
    if not condition:
        raise MobileMoEError(
            f"constant: {name} is {value!r}; allowed: {allowed}",
            hint=f"correct {name} of that entry",
        )
