"""What the planner's figures share: colours of expert counts, units on ticks, log axes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from mobilemoe.page.markup import TIMES, short_count
from mobilemoe.page.style import light

_RAMP = ("experts-2", "experts-4", "moe", "experts-16", "experts-32")
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
Format = Callable[[float], str]


def colour_name(experts: float) -> str:
    """Return the palette's name for an expert count: vermilion if dense, 8 the blue of MoE."""
    if experts <= 1:
        return "dense"
    return _RAMP[min(max(round(math.log2(experts)) - 1, 0), len(_RAMP) - 1)]


def colour(experts: float) -> str:
    """Return the light colour of an expert count."""
    return light(colour_name(experts))


def experts_label(experts: float) -> str:
    """Return how an expert count is called: dense, or E = 8."""
    return "dense" if experts == 1 else f"E = {experts:g}"


def bytes_text(value: float) -> str:
    """Return bytes as a tick says them: 500 MB, 1.5 GB."""
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g} B"


def power_text(value: float) -> str:
    """Return a large number as a power of ten: 3×10²¹, 10²²."""
    if value < 1e4:
        return f"{value:.3g}"
    mantissa, exponent = f"{value:.1e}".split("e")
    power = f"10{str(int(exponent)).translate(_SUPERSCRIPTS)}"
    factor = f"{float(mantissa):g}"
    return power if factor == "1" else f"{factor}{TIMES}{power}"


def count_text(value: float) -> str:
    """Return a count of parameters or tokens: 300M, 1.5B, 2T."""
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def money_text(value: float) -> str:
    """Return money: $0.05, $950, $12k, $1.3M."""
    return f"${short_count(value)}" if value >= 10 else f"${value:.2g}"


def log_ticks(low: float, high: float, most: int) -> list[float]:
    """Return at most `most` ticks, as many as there are, at round numbers in [low, high]."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 1.5, 2, 3, 4, 5, 6, 8), (1, 2, 3, 5), (1, 2, 5), (1, 3), (1,)):
        ticks = [step * 10.0**exponent for exponent in exponents for step in steps]
        inside = [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]
        if len(inside) <= most:
            return inside
    return inside[:: math.ceil(len(inside) / most)]


def log_scale(axes: Axes, which: str, low: float, high: float, *, ticks: int, form: Format) -> None:
    """Make one axis ("x" or "y") logarithmic from `low` to `high`, with at most `ticks` ticks."""
    scale, limits = getattr(axes, f"set_{which}scale"), getattr(axes, f"set_{which}lim")
    scale("log")
    axis = axes.xaxis if which == "x" else axes.yaxis
    places = log_ticks(low, high, ticks)
    axis.set_ticks(places, [form(place) for place in places])
    axis.set_minor_locator(NullLocator())
    limits(low, high)


def linear_scale(axes: Axes, which: str, *, ticks: int, form: Format) -> None:
    """Give one axis about `ticks` ticks written by `form`."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(MaxNLocator(ticks))
    axis.set_major_formatter(FuncFormatter(lambda value, _: form(value)))


def padded(
    values: Iterable[float], share: float = 0.06, least: float = 1e-3
) -> tuple[float, float]:
    """Return limits around the finite ones of `values`, with a margin; 0 to 1 without any."""
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return 0.0, 1.0
    low, high = min(known), max(known)
    margin = max((high - low) * share, least, 1e-6 * max(abs(low), abs(high)))
    return low - margin, high + margin


def log_padded(values: Iterable[float], factor: float = 1.15) -> tuple[float, float]:
    """Return positive limits around `values` for a logarithmic axis; 1 to 10 without any."""
    known = [value for value in values if math.isfinite(value) and value > 0]
    if not known:
        return 1.0, 10.0
    return min(known) / factor, max(known) * factor


def end_labels(
    axes: Axes, ends: Sequence[tuple[float, str, str]], x: float, *, gap: float = 14.0
) -> None:
    """Write labels (y, text, colour) to the right of `x`, moved apart so that none overlap."""
    if not ends:
        return
    from mobilemoe.page.canvas import spread

    ordered = sorted(ends, key=lambda end: end[0])
    to_pixels = axes.transData
    wanted = [float(to_pixels.transform((x, end[0]))[1]) for end in ordered]
    low, high = axes.bbox.y0 - gap / 2, axes.bbox.y1 + gap / 2
    placed = spread(wanted, [gap] * len(ordered), low, high)
    for (y, text, tint), at, want in zip(ordered, placed, wanted, strict=True):
        axes.annotate(
            text,
            (x, y),
            xytext=(7, at - want),
            textcoords="offset points",
            color=tint,
            fontsize=11,
            va="center_baseline",
            annotation_clip=False,
        )
