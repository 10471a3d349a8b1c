"""How far a fit reaches: refusing what lies outside, or marking it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

from mobilemoe.errors import MobileMoEError

# An argument: its name, its value and the values of the sweep, in order.
Argument = tuple[str, float, Sequence[float]]
ROUNDING = 1e-9  # 3 * 0.1 is still inside a sweep that ends at 0.3


@dataclass(frozen=True)
class Prediction:
    """A loss in nats per token, and the arguments that lie outside the fitted sweep.

    `outside` names them with their value and the range; it is empty inside the sweep.
    """

    loss: float
    outside: tuple[str, ...]

    @property
    def extrapolated(self) -> bool:
        """Whether the number rests on anything outside the fitted sweep."""
        return bool(self.outside)


def check_positive(arguments: Sequence[Argument]) -> None:
    """Refuse what no law can be asked.

    Raises:
        MobileMoEError: if an argument is not a positive number.
    """
    for name, value, _ in arguments:
        if not (isfinite(value) and value > 0):
            raise MobileMoEError(
                f"{name} is {value!r}; allowed: a positive number", hint=f"correct {name}"
            )


def outside(arguments: Sequence[Argument]) -> tuple[str, ...]:
    """Describe every argument that is outside its sweep."""
    return tuple(
        f"{name} is {value:g}, outside the law's fitted range {grid[0]:g} to {grid[-1]:g}"
        for name, value, grid in arguments
        if not grid[0] * (1 - ROUNDING) <= value <= grid[-1] * (1 + ROUNDING)
    )


def check_inside(arguments: Sequence[Argument]) -> None:
    """Refuse what the fit knows nothing about.

    Raises:
        MobileMoEError: if an argument is outside its sweep.
    """
    beyond = outside(arguments)
    if beyond:
        raise MobileMoEError(
            "; ".join(beyond),
            hint="the law says nothing there; extrapolate=True computes the number anyway, "
            "predict() computes and marks it",
        )
