"""Figures over tokens: loss, loss by domain, the gradient with its troubles, and vital signs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from mobilemoe.page.canvas import NARROW, Draw, label, new_figure, panel, sheet
from mobilemoe.page.markup import TIMES, printable, short_count
from mobilemoe.page.style import light
from mobilemoe.train.report.axis import (
    POINTS,
    Measure,
    draw_curve,
    log_axis,
    loss_axis,
    stage_names,
    token_axis,
)
from mobilemoe.train.report.record import RunRecord


@dataclass(frozen=True)
class Drawing:
    """A figure by name, with the words that a screen reader says, and how to draw it."""

    name: str
    words: str
    draw: Draw


@dataclass(frozen=True)
class Sign:
    """A measure with a small panel: its title, its value in a step, and how ticks are written."""

    title: str
    measure: Measure
    tick: Callable[[float], str]
    from_zero: bool = False


SIGNS = (
    Sign("Tokens per second", lambda step: step.tok_s, short_count, from_zero=True),
    Sign("Model FLOPs utilisation", lambda step: step.mfu, lambda v: f"{v:.0%}", from_zero=True),
    Sign("Learning rate", lambda step: step.lr, lambda v: f"{v:g}", from_zero=True),
    Sign("Choices dropped", lambda step: step.dropped_share, lambda v: f"{v:.1%}", from_zero=True),
    Sign("Fullest expert", lambda step: step.worst_load, lambda v: f"{v:g}{TIMES}"),
    Sign("Router entropy", lambda step: step.router_entropy, lambda v: f"{v:.3g}"),
)


def drawings(run: RunRecord) -> list[Drawing]:
    """Return the figures of a run that are curves, in the order of the page."""
    gradient = "Gradient norm over tokens seen, with skipped steps and rollbacks"
    signs = "Speed, learning rate and routing over tokens seen"
    found = [Drawing("loss", "Training loss over tokens seen", lambda w: _loss(run, w))]
    if run.domains:
        words = "Training and held-out loss of each domain over tokens seen"
        found.append(Drawing("domains", words, lambda w: _domains(run, w)))
    found.append(Drawing("gradient", gradient, lambda w: _gradient(run, w)))
    return [*found, Drawing("signs", signs, lambda w: _signs(run, w))]


def _points(width: int) -> int:
    return POINTS if width > NARROW else POINTS // 2


def _loss(run: RunRecord, width: int) -> Figure:
    height = 380 if width > NARROW else 330
    left, top, bottom = 34, 66, 44
    figure = new_figure(width, height)
    axes = panel(figure, left, top, width - left - 6, height - top - bottom)
    losses = draw_curve(axes, run, lambda step: step.loss, _points(width))
    loss_axis(axes, losses)
    token_axis(axes, run, 8 if width > NARROW else 4, label=True)
    stage_names(sheet(figure), run, (left, width - 6), top)
    return figure


def _domains(run: RunRecord, width: int) -> Figure:
    number = len(run.domains)
    columns = 1 if width == NARROW else 2 if number in (2, 4) else min(number, 3)
    figure, cells = _grid(number, columns, width, 150.0)
    for name, axes in zip(run.domains, cells, strict=True):
        axes.set_title(printable(name), loc="left", fontsize=12.5, fontweight="bold", pad=8, x=0)
        losses = draw_curve(axes, run, _loss_of(name), 200)
        held = _heldout(axes, run, name)
        loss_axis(axes, losses + held)
        token_axis(axes, run, 4)
    return figure


def _loss_of(domain: str) -> Measure:
    return lambda step: step.domain_loss.get(domain)


def _heldout(axes: Axes, run: RunRecord, domain: str) -> list[float]:
    """Draw the held-out losses before and after each stage; name the last one."""
    drawn: list[float] = []
    colour = light("dense")
    last: tuple[float, float] | None = None
    for start, stage in run.starts():
        ends = ((start, stage.before.get(domain)), (start + stage.tokens, stage.after.get(domain)))
        known = [(x, y) for x, y in ends if y is not None]
        if len(known) == 2:
            axes.plot(*zip(*known, strict=True), ":", color=colour, lw=1.4)
        for x, y in known:
            axes.plot(x, y, "o", ms=4.5, color=colour, clip_on=False, zorder=5)
            drawn.append(y)
            last = (x, y)
    if last is not None:
        look = {"ha": "right", "va": "bottom", "color": colour, "weight": "bold"}
        label(axes, f"{last[1]:.2f}", last, (2, 6), **look)
    return drawn


def _gradient(run: RunRecord, width: int) -> Figure:
    height, left, top, bottom = 250, 38, 26, 44
    figure = new_figure(width, height)
    axes = panel(figure, left, top, width - left - 6, height - top - bottom)
    log_axis(axes, draw_curve(axes, run, lambda step: step.grad_norm, _points(width)))
    token_axis(axes, run, 8 if width > NARROW else 4, label=True)
    for start, stage in run.starts():
        for back in stage.rollbacks:
            ends = [start + stage.at(back.from_step), start + stage.at(back.to_step)]
            axes.axvspan(min(ends), max(ends), color=light("bad"), alpha=0.18, lw=0)
            axes.axvline(ends[0], color=light("bad"), lw=1.2)
            _mark(axes, ends[0], "◂")
        for skip in stage.skipped:
            _mark(axes, start + stage.at(skip.step), "▾")
    return figure


def _mark(axes: Axes, tokens: float, sign: str) -> None:
    """Put a red sign above the plot at `tokens`."""
    top = axes.get_ylim()[1]
    look = {"ha": "center", "va": "bottom", "color": light("bad"), "fontsize": 13}
    label(axes, sign, (tokens, top), (0, 1), **look)


def _signs(run: RunRecord, width: int) -> Figure:
    known = [sign for sign in SIGNS if _is_known(run, sign)]
    columns = 3 if width > NARROW else 1
    figure, cells = _grid(len(known), columns, width, 112.0)
    for sign, axes in zip(known, cells, strict=True):
        axes.set_title(sign.title, loc="left", fontsize=12.5, fontweight="bold", pad=8, x=0)
        values = draw_curve(axes, run, sign.measure, 200)
        high = max(values, default=1.0)
        if sign.from_zero:
            axes.set_ylim(0, 1.1 * high if high > 0 else 1.0)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _, tick=sign.tick: tick(v)))
        token_axis(axes, run, 4)
    return figure


def _is_known(run: RunRecord, sign: Sign) -> bool:
    values = (sign.measure(step) for stage in run.stages for step in stage.steps)
    return any(value is not None and math.isfinite(value) for value in values)


def _grid(count: int, columns: int, width: int, tall: float) -> tuple[Figure, list[Axes]]:
    """Return a figure of `count` panels in rows of `columns`, with room for ticks and titles."""
    left, gap, above, below = 46, 14, 30, 34
    rows = -(-count // columns)
    cell = (width - gap * (columns - 1)) / columns
    figure = new_figure(width, rows * (above + tall + below))
    cells = []
    for index in range(count):
        row, column = divmod(index, columns)
        top = row * (above + tall + below) + above
        place = (column * (cell + gap) + left, top, cell - left - 4, tall)
        cells.append(panel(figure, *place))
    return figure, cells
