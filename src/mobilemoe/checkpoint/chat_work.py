"""What one rendering of a foreign chat template may cost, paid before the work is done.

A unit is about one character or item that is read or written. Every operation of a template
pays for its inputs first, and those that multiply (`*`, `replace`, `join`, formats, indents) for
what they would make. So the allowance bounds time and memory together, and the same template
with the same messages is refused on every machine or on none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Set, ValuesView
from string import Formatter
from typing import Any

MAX_DEPTH = 64  # of lists in lists: Python hashes nested tuples by unbounded recursion in C
MAX_POWER_BITS = 4096
PER_VALUE = 8  # units for looking at a value at all
LIMB_BITS = 30

_CONTAINERS = (Sequence, Mapping, Set, ValuesView)
_NO_ITEMS = (str, bytes, range)
_NUMBER = re.compile(r"[0-9]+")
_STARRED = re.compile(r"%[-+ #0-9.]*\*")


class WorkLimitError(Exception):
    """A template has used up its allowance, or asks for something out of proportion."""


class Work:
    """The allowance of one rendering, in units."""

    def __init__(self, allowance: int) -> None:
        self._allowance = allowance
        self._left = allowance

    @property
    def left(self) -> int:
        """Units that may still be paid."""
        return self._left

    def pay(self, units: int) -> None:
        """Take `units` from the allowance.

        Raises:
            WorkLimitError: if less than that is left.
        """
        if units > self._left:
            raise WorkLimitError(f"it does more work than allowed ({self._allowance} units)")
        self._left -= units

    def pay_top(self, value: Any) -> None:
        """Pay for looking at the items of `value`, not into them."""
        self.pay(1 + (len(value) if isinstance(value, _CONTAINERS) else 0))

    def pay_whole(self, value: Any) -> None:
        """Pay for everything in `value`, as often as it would be printed or compared.

        Raises:
            WorkLimitError: also for more than MAX_DEPTH levels of nesting.
        """
        stack = [(value, 0)]
        while stack:
            value, depth = stack.pop()
            self.pay(_own_size(value))
            if depth > MAX_DEPTH:
                raise WorkLimitError(f"it nests values more than {MAX_DEPTH} levels deep")
            if isinstance(value, Mapping):
                stack += [(key, depth + 1) for key in value]
                stack += [(item, depth + 1) for item in value.values()]
            elif isinstance(value, _CONTAINERS) and not isinstance(value, _NO_ITEMS):
                stack += [(item, depth + 1) for item in value]

    def pay_operator(self, operator: str, left: Any, right: Any) -> None:
        """Pay for `left operator right`."""
        if isinstance(left, int) and isinstance(right, int):
            self._pay_integers(operator, left, right)
        elif operator == "*":
            for items, times in ((left, right), (right, left)):
                if isinstance(items, _CONTAINERS) and isinstance(times, int):
                    self.pay(len(items) * max(times, 0))
        elif operator == "%" and isinstance(left, str):
            self.pay_format(left, right)
        else:
            look = self.pay_top if operator == "+" else self.pay_whole
            look(left)
            look(right)

    def _pay_integers(self, operator: str, left: int, right: int) -> None:
        if operator == "**" and left.bit_length() * right > MAX_POWER_BITS:
            raise WorkLimitError(f"a power is longer than {MAX_POWER_BITS} bits")
        limbs = [1 + value.bit_length() // LIMB_BITS for value in (left, right)]
        self.pay(limbs[0] * limbs[1])

    def pay_all(self, value: Any, *options: Any, **named: Any) -> None:
        """Pay for reading all of `value`, and for applying the options to every item of it."""
        self.pay_whole(value)
        self.pay_each(value, *options, **named)

    def pay_each(self, value: Any, *options: Any, **named: Any) -> None:
        """Pay for applying the options to every item of `value`."""
        self.pay_top(value)
        given = (*options, *named.values())
        self.pay_whole(given)
        if isinstance(value, _CONTAINERS):
            self.pay(len(value) * _letters(given))

    def pay_product(self, text: Any, *patterns: Any, **named: Any) -> None:
        """Pay for a search that Python may do in len(text) x len(pattern) steps."""
        self.pay_all(text, *patterns, **named)

    def pay_format(self, value: str, *args: Any, **kwargs: Any) -> None:
        """Pay for `value % args` or `value.format(args)`, whatever widths `value` asks for."""
        if _STARRED.search(value) or any("{" in spec for spec in _format_specs(value)):
            raise WorkLimitError("a format takes its width from a value")
        before = self._left
        self.pay_whole((args, kwargs))
        fields = value.count("%") + value.count("{")
        widths = sum(int(digits) for digits in _NUMBER.findall(value))
        self.pay(len(value) + widths + fields * (before - self._left))

    # The arguments below are called as in Jinja's filters, because templates may name them.

    def pay_replace(self, s: Any, old: Any, new: Any, count: Any = None) -> None:
        """Pay for `s.replace(old, new)`."""
        self.pay_whole((s, old, new))
        self.pay(str(s).count(str(old)) * len(str(new)))

    def pay_join(self, value: Any, d: Any = "", attribute: Any = "") -> None:
        """Pay for `d.join(value)`."""
        self.pay_all(value, d, attribute)

    def pay_indent(self, s: Any, width: Any = 4, first: Any = False, blank: Any = False) -> None:
        """Pay for `width` blanks, or that text, in front of every line."""
        self.pay_whole((s, width))
        times = width if isinstance(width, int) else len(width)
        self.pay((1 + len(s.splitlines())) * max(times, 0))


def _own_size(value: Any) -> int:
    """Return the units of `value` without its items."""
    if isinstance(value, str | bytes):
        return PER_VALUE + len(value)
    if isinstance(value, int):
        return PER_VALUE + value.bit_length() // 3  # digits
    return PER_VALUE


def _letters(values: tuple[Any, ...]) -> int:
    return sum(len(value) for value in values if isinstance(value, str))


def _format_specs(text: str) -> list[str]:
    try:
        return [spec or "" for _, _, spec, _ in Formatter().parse(text)]
    except ValueError:  # no format of this kind; it may be one of the other
        return []
