"""One way to refuse an argument: field, value, what is allowed, and a hint."""

from __future__ import annotations

from mobilemoe.errors import MobileMoEError


def require(condition: bool, field: str, value: object, allowed: str, hint: str) -> None:
    """Raise MobileMoEError unless `condition` holds."""
    if not condition:
        raise MobileMoEError(f"{field} is {value!r}; allowed: {allowed}", hint=hint)


def is_integer(value: object) -> bool:
    """Whether `value` is an int and not a bool."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Whether `value` is an int or a float and not a bool (it may be NaN)."""
    return isinstance(value, int | float) and not isinstance(value, bool)
