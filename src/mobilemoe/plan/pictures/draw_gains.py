"""A sweep's findings: gains with intervals as points on a line, and held-out predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mobilemoe.page.canvas import NARROW, Draw, new_figure, panel, sheet
from mobilemoe.page.markup import MINUS, printable
from mobilemoe.page.style import light
from mobilemoe.plan.pictures.axis import colour, linear_scale, padded
from mobilemoe.plan.pictures.drawing import Drawing
from mobilemoe.plan.pictures.legend import Key, legend, legend_height
from mobilemoe.plan.pictures.sweep import Panel, Point, Series, heldout_error

Gain = tuple[str, float, Point]  # row, experts for its colour, and its point (x is not drawn)


def gains_drawing(panels: Sequence[Panel]) -> Drawing:
    """Return a row for each series: the change of loss (y of its points) with its interval."""
    caption = (
        "Change of held-out loss at equal active parameters and tokens; left of the line is "
        "better. Bars: intervals; a bar that crosses the line is no finding."
    )
    return Drawing("gains", gains_words(panels), caption, gains_figure(panels))


def gains_words(panels: Sequence[Panel]) -> str:
    """Return every gain with its interval, in a sentence."""
    parts = [f"{group.title}: {', '.join(map(_gain_words, _rows(group)))}" for group in panels]
    return f"Change of loss with intervals. {'; '.join(parts)}.".replace("-", MINUS)


def _gain_words(gain: Gain) -> str:
    name, _, point = gain
    low, high = point.bounds
    return f"{name} {point.y:+.4f} ({low:+.4f} to {high:+.4f})"


def gains_figure(panels: Sequence[Panel]) -> Draw:
    """Return the drawing; all panels share one scale of loss."""
    return lambda width: _draw_gains(panels, width)


def _rows(group: Panel) -> list[Gain]:
    return [
        (series.label, series.experts, point) for series in group.series for point in series.points
    ]


def _draw_gains(panels: Sequence[Panel], width: int) -> Figure:
    step, title, foot, left = 26, 34, 12, 150 if width > NARROW else 104
    rows = [_rows(group) for group in panels]
    heights = [title + step * max(1, len(each)) + foot for each in rows]
    figure = new_figure(width, sum(heights) + 42)
    values = [bound for each in rows for _, _, point in each for bound in point.bounds]
    limits = padded([0.0, *values], 0.1, 0.002)
    top = 0.0
    for index, (group, each, height) in enumerate(zip(panels, rows, heights, strict=True)):
        tall = step * max(1, len(each))
        axes = panel(figure, left, top + title, width - left - 70, tall)
        axes.set_xlim(*limits)
        last = index == len(panels) - 1
        _gain_panel(axes, printable(group.title), each, last)
        top += height
    return figure


def _gain_panel(axes: Axes, title: str, rows: Sequence[Gain], last: bool) -> None:
    axes.set_ylim(max(1, len(rows)) - 0.5, -0.5)
    axes.set_yticks(range(len(rows)), [printable(name) for name, _, _ in rows], fontsize=11.5)
    axes.tick_params(axis="y", labelcolor=light("ink"))
    axes.grid(axis="y")
    axes.set_title(title, loc="left", fontsize=12.5, fontweight="bold", pad=8, x=0)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.axvline(0, color=light("mute"), lw=1.2, zorder=1)
    linear_scale(axes, "x", ticks=5, form=_signed)
    if last:
        axes.set_xlabel("change of loss, nats per token")
    else:
        axes.tick_params(axis="x", labelbottom=False)
    for index, (_, experts, point) in enumerate(rows):
        low, high = point.bounds
        tint = colour(experts)
        span = [[point.y - low], [high - point.y]]
        axes.errorbar([point.y], [index], xerr=span, fmt="o", ms=7, color=tint, capsize=3, lw=1.6)
        look: dict[str, Any] = {"va": "center_baseline", "fontsize": 11, "annotation_clip": False}
        at, text = (axes.get_xlim()[1], index), f"{point.y:+.4f}".replace("-", MINUS)
        axes.annotate(text, at, xytext=(8, 0), textcoords="offset points", **look)


def _signed(value: float) -> str:
    return "0" if abs(value) < 1e-12 else f"{value:+.3g}".replace("-", MINUS)


def heldout_drawing(series: Sequence[Series]) -> Drawing:
    """Return measured (y) over predicted (x) losses of runs that the fit did not see."""
    points = [point for each in series for point in each.points]
    words = "Measured over predicted loss of held-out runs"
    if points:
        mean, worst = heldout_error(points)
        words += f": {len(points)} runs, off by {mean:.4f} on average and {worst:.4f} at most"
    caption = (
        "Runs that the fit did not see: measured loss over the law's prediction. On the line the "
        "prediction is exact; above it the run was worse than predicted."
    )
    return Drawing("heldout", f"{words}.", caption, heldout_figure(series))


def heldout_figure(series: Sequence[Series]) -> Draw:
    """Return the drawing: a square plot with its diagonal."""
    return lambda width: _draw_heldout(series, width)


def _draw_heldout(series: Sequence[Series], width: int) -> Figure:
    keys = [Key(printable(each.label), colour(each.experts), "dot") for each in series]
    head, left, foot = legend_height(keys, width) + 26, 52, 44
    side = min(400, width - left - 16)
    figure = new_figure(width, head + side + foot)
    legend(sheet(figure), keys, 0, 0, width)
    axes = panel(figure, left, head, side, side)
    points = [point for each in series for point in each.points]
    limits = padded((v for p in points for v in (p.x, *p.bounds)), 0.08, 0.01)
    axes.set_xlim(*limits)
    axes.set_ylim(*limits)
    axes.plot(limits, limits, color=light("mute"), lw=1.2, zorder=1)
    for which in ("x", "y"):
        linear_scale(axes, which, ticks=5, form=lambda loss: f"{loss:.2f}")
    axes.grid()
    axes.set_xlabel("predicted loss")
    axes.set_title("measured loss", loc="left", fontsize=11, color=light("soft"), pad=6, x=-0.01)
    for each in series:
        x, y = [p.x for p in each.points], [p.y for p in each.points]
        span = [[p.y - p.bounds[0] for p in each.points], [p.bounds[1] - p.y for p in each.points]]
        look: dict[str, Any] = {"elinewidth": 1.2, "capsize": 2, "color": colour(each.experts)}
        axes.errorbar(x, y, yerr=span, fmt="o", ms=6, **look)
    return figure
