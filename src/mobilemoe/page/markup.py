"""Words and numbers as HTML: escaping, number formats and tables."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Sequence

MINUS = "\u2212"
TIMES = "\u00d7"
MISSING = '<span class="missing">not measured</span>'
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffe\uffff]")


def printable(text: str) -> str:
    """Return `text` with U+FFFD for what UTF-8 or HTML cannot hold, and plain line ends."""
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return _CONTROL.sub("\ufffd", whole.replace("\r\n", "\n").replace("\r", "\n"))


def escape(text: object) -> str:
    """Return `text` as safe HTML."""
    return html.escape(printable(str(text)))


def finite(value: float | None) -> float | None:
    """Return `value`, or None if it was not measured (null, NaN or infinite)."""
    return value if value is not None and math.isfinite(value) else None


def finites(values: Iterable[float | None]) -> list[float]:
    """Return the measured ones of `values`, in order."""
    return [value for value in values if value is not None and math.isfinite(value)]


def count(value: float | None) -> str:
    """Return an exact integer with its thousands apart: 1,234,567."""
    number = finite(value)
    return MISSING if number is None else f"{number:,.0f}".replace("-", MINUS)


def decimal(value: float | None, digits: int = 2, unit: str = "") -> str:
    """Return `value` with `digits` decimals and its unit."""
    number = finite(value)
    if number is None:
        return MISSING
    return f"{number:,.{digits}f}".replace("-", MINUS) + _unit(unit)


def significant(value: float | None, unit: str = "") -> str:
    """Return `value` with about three significant digits: 0.123, 1.23, 12.3, 123, 1,234."""
    number = finite(value)
    if number is None:
        return MISSING
    size = abs(number)
    digits = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 or size == 0 else 3
    return decimal(number, digits, unit)


def change(value: float | None, digits: int = 2) -> str:
    """Return a difference with its sign: +0.12 or −0.12."""
    number = finite(value)
    return MISSING if number is None else f"{number:+.{digits}f}".replace("-", MINUS)


def percent(value: float | None, digits: int = 0) -> str:
    """Return a share of one as per cent."""
    number = finite(value)
    return decimal(None if number is None else 100 * number, digits, "%")


def scientific(value: float | None) -> str:
    """Return a very small number: 3.1 × 10⁻⁷, or 0."""
    number = finite(value)
    if number is None:
        return MISSING
    if number == 0:
        return "0"
    mantissa, exponent = f"{number:.1e}".split("e")
    power = str(int(exponent)).replace("-", MINUS)
    text = f"{mantissa.replace('-', MINUS)} {TIMES} 10<sup>{power}</sup>"
    return f'<span class="nb">{text}</span>'


def short_count(value: float) -> str:
    """Return a large count in few characters: 950, 1.26k, 12.6M, 1.3G."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            scaled = value / size
            digits = 0 if scaled >= 100 else 1 if scaled >= 10 else 2
            text = f"{scaled:.{digits}f}"
            return (text.rstrip("0").rstrip(".") if "." in text else text) + letter
    return f"{value:.0f}"


def megabytes(value: float | None) -> str:
    """Return bytes as MB (10⁶ bytes), or kB or GB where that reads better."""
    number = finite(value)
    if number is None:
        return MISSING
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if number >= size:
            return significant(number / size, unit)
    return count(number) + _unit("bytes")


def duration(seconds: float | None) -> str:
    """Return a time a person would say: 0.4 s, 12 s, 3 min 05 s, 1 h 02 min."""
    number = finite(seconds)
    if number is None:
        return MISSING
    if number < 10:
        return decimal(number, 1, "s")
    whole = round(number)
    if whole < 60:
        return f"{whole}\u202fs"
    if whole < 3600:
        return f"{whole // 60}\u202fmin {whole % 60:02d}\u202fs"
    return f"{whole // 3600}\u202fh {whole % 3600 // 60:02d}\u202fmin"


def _unit(unit: str) -> str:
    return f"\u202f{unit}" if unit else ""


def table(head: Sequence[str], rows: Iterable[Sequence[str]], label: str, classes: str = "") -> str:
    """Return a table of ready HTML cells whose first column names the rows."""
    columns = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    body = "".join(_row(row) for row in rows)
    return (
        f'<div class="scroll"><table class="{classes}" aria-label="{escape(label)}">'
        f"<thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _row(cells: Sequence[str]) -> str:
    rest = "".join(f"<td>{cell}</td>" for cell in cells[1:])
    return f'<tr><th scope="row">{cells[0]}</th>{rest}</tr>'


def figure(body: str, caption: str) -> str:
    """Return a figure with its caption; both are ready HTML."""
    return f"<figure>{body}<figcaption>{caption}</figcaption></figure>"


def paragraph(text: str, classes: str = "") -> str:
    """Return a paragraph of ready HTML."""
    return f'<p class="{classes}">{text}</p>' if classes else f"<p>{text}</p>"


def not_measured(what: str) -> str:
    """Return the note that stands where a whole part was not measured."""
    return paragraph(f"{escape(what)}: {MISSING} in this run.", "absent")
