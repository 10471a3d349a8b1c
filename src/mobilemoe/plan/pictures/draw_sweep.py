"""A sweep's curves: loss over active parameters at equal FLOPs, and over bytes per E."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mobilemoe.page.canvas import NARROW, Draw, new_figure, panel, sheet
from mobilemoe.page.markup import printable
from mobilemoe.page.style import light
from mobilemoe.plan.pictures.axis import (
    Format,
    bytes_text,
    colour,
    count_text,
    linear_scale,
    log_padded,
    log_scale,
    padded,
)
from mobilemoe.plan.pictures.drawing import Drawing
from mobilemoe.plan.pictures.legend import Key, legend, legend_height
from mobilemoe.plan.pictures.sweep import Panel, Point, Series, crossovers

_MARKS = {1: "D"}  # dense stands out in shape too


def iso_flops_drawing(panels: Sequence[Panel]) -> Drawing:
    """Return loss over active parameters, a panel for each budget of training FLOPs."""
    caption = (
        "Held-out loss over active parameters at equal training FLOPs, one line for each E. Bars: "
        "intervals over seeds; dashed: the fitted law."
    )
    words = f"Loss over active parameters at equal training FLOPs: {_words(panels)}"
    return Drawing("iso-flops", words, caption, iso_flops_figure(panels))


def iso_memory_drawing(panels: Sequence[Panel]) -> Drawing:
    """Return loss over INT4 bytes for each E, with the places where MoE and dense cross."""
    caption = (
        "Held-out loss over the bytes of the INT4 file, one line for each E. Rings: where a "
        "mixture of experts and the dense model cross."
    )
    words = f"Loss over INT4 bytes: {_words(panels)}"
    return Drawing("iso-memory", words, caption, iso_memory_figure(panels))


def iso_flops_figure(panels: Sequence[Panel]) -> Draw:
    """Return the drawing of the panels over active parameters."""
    return lambda width: _draw(panels, width, "active parameters", count_text, rings=False)


def iso_memory_figure(panels: Sequence[Panel]) -> Draw:
    """Return the drawing of the panels over bytes, with a ring at each crossover."""
    return lambda width: _draw(panels, width, "INT4 bytes", bytes_text, rings=True)


def dense_crossovers(group: Panel) -> list[tuple[Series, Point]]:
    """Return where each measured MoE series of a panel crosses its measured dense one."""
    measured = [series for series in group.series if not series.predicted and series.points]
    dense = next((series for series in measured if series.experts == 1), None)
    if dense is None:
        return []
    others = [series for series in measured if series.experts != 1]
    return [(series, point) for series in others for point in crossovers(dense, series)]


def _words(panels: Sequence[Panel]) -> str:
    parts = []
    for group in panels:
        known = [s for s in group.series if s.points and not s.predicted]
        lowest = min(known, key=lambda s: min(p.y for p in s.points), default=None)
        if lowest is not None:
            parts.append(
                f"{group.title}, lowest {min(p.y for p in lowest.points):.3f} with {lowest.label}"
            )
    return "; ".join(parts) + "." if parts else "nothing was measured."


def _draw(panels: Sequence[Panel], width: int, unit: str, form: Format, *, rings: bool) -> Figure:
    keys = _keys(panels)
    columns = 1 if width == NARROW else min(len(panels), 3) or 1
    rows = max(1, -(-len(panels) // columns))
    head, title, foot, left, gap, tall = legend_height(keys, width) + 8, 26, 42, 44, 12, 220
    wide = (width - gap * (columns - 1)) / columns - left - 8
    figure = new_figure(width, head + rows * (title + tall + foot))
    legend(sheet(figure), keys, 0, 0, width)
    limits = padded((b for p in _points(panels) for b in p.bounds), 0.08, 0.005)
    for index, group in enumerate(panels):
        row, column = divmod(index, columns)
        top = head + row * (title + tall + foot) + title
        axes = panel(figure, column * (wide + left + 8 + gap) + left, top, wide, tall)
        axes.set_title(printable(group.title), loc="left", fontsize=11.5, pad=6, x=0)
        low, high = log_padded((p.x for p in _points([group])), 1.2)
        log_scale(axes, "x", low, high, ticks=5 if columns < 3 else 3, form=form)
        axes.set_xlabel(unit)
        axes.set_ylim(*limits)
        linear_scale(axes, "y", ticks=6, form=lambda loss: f"{loss:.2f}")
        axes.grid(axis="y")
        axes.spines["left"].set_visible(False)
        _series(axes, group, rings)
    return figure


def _points(panels: Sequence[Panel]) -> list[Point]:
    return [point for group in panels for series in group.series for point in series.points]


def _keys(panels: Sequence[Panel]) -> list[Key]:
    measured: dict[str, Key] = {}
    predicted = False
    for group in panels:
        for series in group.series:
            predicted = predicted or series.predicted
            mark = _MARKS.get(int(series.experts), "o")
            key = Key(printable(series.label), colour(series.experts), "line", mark=mark)
            if not series.predicted:
                measured.setdefault(series.label, key)
    law = [Key("fitted law", light("mute"), "dashes")] if predicted else []
    return [*measured.values(), *law]


def _series(axes: Axes, group: Panel, rings: bool) -> None:
    for series in group.series:
        points, tint = series.in_order, colour(series.experts)
        x, y = [p.x for p in points], [p.y for p in points]
        if series.predicted:
            axes.plot(x, y, color=tint, lw=1.3, ls=(0, (4, 2.5)))
            continue
        below = [p.y - p.bounds[0] for p in points]
        above = [p.bounds[1] - p.y for p in points]
        mark = _MARKS.get(int(series.experts), "o")
        look: dict[str, Any] = {
            "color": tint,
            "lw": 1.6,
            "ms": 5,
            "elinewidth": 1.3,
            "capsize": 2.5,
        }
        axes.errorbar(x, y, yerr=[below, above], fmt=f"-{mark}", **look)
    for series, point in dense_crossovers(group) if rings else ():
        ring: dict[str, Any] = {"mfc": "none", "mec": light("ink"), "mew": 1.6, "zorder": 6}
        axes.plot(point.x, point.y, "o", ms=12, **ring)
        tint = colour(series.experts)
        axes.plot(point.x, point.y, "o", ms=4, color=tint, zorder=7)
