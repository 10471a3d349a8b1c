"""Amounts as people write them: 4.75MB, 3.2MFLOP, 1.5G; and back."""

from __future__ import annotations

import re
from decimal import Decimal

import typer

_PREFIXES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY = {"ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_NUMBER = r"\s*(\d+(?:\.\d+)?)\s*"


def parse_bytes(text: str) -> int:
    """Return the bytes of `text`: a number with kB, MB, GB (powers of 1000) or KiB, MiB, GiB.

    Raises:
        typer.BadParameter: if it is anything else (exit status 2).
    """
    return _parse(text, r"([kmgt]?i?)b?", {**_PREFIXES, **_BINARY}, "4750000, 4.75MB or 1.5GiB")


def parse_flops(text: str) -> int:
    """Return the FLOPs of `text`: a number with k, M, G, T and optionally FLOP.

    Raises:
        typer.BadParameter: if it is anything else (exit status 2).
    """
    return _parse(text, r"([kmgt]?)(?:flops?)?", _PREFIXES, "3200000, 3.2M or 3.2MFLOP")


def parse_number(text: str) -> float:
    """Return a large number: 1e22, 500B (billions) or 6T.

    Raises:
        typer.BadParameter: if it is anything else (exit status 2).
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?(?:e\+?\d{1,3})?)([kmgbt]?)", text.strip().lower())
    if found is None:
        raise typer.BadParameter(f"{text!r} is not a number; write for example 1e22, 500B or 6T")
    value = float(found.group(1)) * (_PREFIXES | {"b": 10**9})[found.group(2)]
    if not 0 < value < 1e300:
        raise typer.BadParameter(f"{text!r} is not a positive number below 1e300")
    return value


def _parse(text: str, unit: str, factors: dict[str, int], examples: str) -> int:
    found = re.fullmatch(_NUMBER + unit, text.strip(), flags=re.IGNORECASE)
    factor = factors.get(found.group(2).lower()) if found else None
    if found is None or factor is None:
        raise typer.BadParameter(f"{text!r} is not an amount; write for example {examples}")
    amount = Decimal(found.group(1)) * factor
    if amount != int(amount) or amount < 1:
        raise typer.BadParameter(f"{text!r} is not a whole number of at least 1")
    return int(amount)


def amount(value: float, unit: str) -> str:
    """Return `value` with three significant digits and an SI prefix: 4.07 MB."""
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor * 0.9995:
            return f"{_three_digits(value / factor)} {prefix}{unit}"
    return f"{value:g} {unit}"


def count(value: float) -> str:
    """Return a number of parameters in words: 7.04 million."""
    for factor, word in ((1e9, "billion"), (1e6, "million"), (1e3, "thousand")):
        if value >= factor * 0.9995:
            return f"{_three_digits(value / factor)} {word}"
    return f"{value:g}"


def _three_digits(value: float) -> str:
    decimals = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{decimals}f}"


def time_span(seconds: float) -> str:
    """Return a time as a person would say it: 12 s, 3 min 05 s, 1 h 02 min, 2 d 03 h."""
    whole = max(0, round(seconds))
    for size, unit, part, lower in ((86400, "d", 3600, "h"), (3600, "h", 60, "min")):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // part:02d} {lower}"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"
