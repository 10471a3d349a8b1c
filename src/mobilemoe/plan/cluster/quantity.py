"""A number that knows where it comes from: what a plan rests on can be read in the plan."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from mobilemoe.errors import MobileMoEError

# measured by this project, published by somebody else, assumed by us, or stated by the user
Kind = Literal["measured", "published", "assumed", "stated"]


@dataclass(frozen=True)
class Quantity:
    """A positive number, its unit, and in one sentence why it should be believed.

    Raises:
        MobileMoEError: if the value is not a positive finite number, or the kind is unknown.
    """

    name: str
    value: float
    unit: str
    kind: Kind
    source: str

    def __post_init__(self) -> None:
        number = type(self.value) in (int, float)
        if not number or not math.isfinite(self.value) or self.value <= 0:
            raise MobileMoEError(f"{self.name} is {self.value!r}; allowed: a positive number")
        if self.kind not in get_args(Kind):
            allowed = ", ".join(get_args(Kind))
            raise MobileMoEError(f"{self.name}: kind is {self.kind!r}; allowed: {allowed}")
        if type(self.source) is not str or not self.source:
            raise MobileMoEError(f"{self.name}: source is {self.source!r}; allowed: a sentence")

    def to_dict(self) -> dict[str, object]:
        """Return the fields as plain values."""
        return dict(vars(self))
