"""What all curves of the report share: tokens of all stages on one axis, a band for each."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from mobilemoe.page.canvas import NARROW, spread
from mobilemoe.page.curves import LOSS_TICKS, Points, smoothed, thinned
from mobilemoe.page.markup import printable, short_count
from mobilemoe.page.style import light
from mobilemoe.train.events import StepMetrics
from mobilemoe.train.report.record import RunRecord, StageRecord

POINTS = 600  # of a curve over the whole width of a desktop page
Measure = Callable[[StepMetrics], float | None]


def stage_curve(start: float, stage: StageRecord, measure: Measure, most: int) -> Points:
    """Return tokens and values of one stage's curve, thinned to `most` points."""
    known = [(step.tokens_seen, measure(step)) for step in stage.steps]
    pairs = [(start + tokens, value) for tokens, value in known if value is not None]
    return thinned([x for x, _ in pairs], [y for _, y in pairs], max(2, most))


def draw_curve(axes: Axes, run: RunRecord, measure: Measure, points: int) -> list[float]:
    """Draw a curve stage by stage, pale with its running mean; returns all values drawn."""
    drawn: list[float] = []
    for start, stage in run.starts():
        x, y = stage_curve(start, stage, measure, round(points * stage.tokens / run.tokens))
        dot = "o" if len(x) == 1 else ""
        axes.plot(x, y, color=light("moe-soft"), lw=1)
        axes.plot(x, smoothed(y, points // 100), color=light("moe"), lw=1.8, marker=dot, ms=4)
        drawn += y
    return drawn


def token_axis(axes: Axes, run: RunRecord, ticks: int, label: bool = False) -> None:
    """Set up the axis of tokens, with a band behind every other stage."""
    axes.set_xlim(0, max(1.0, run.tokens))
    for index, (start, stage) in enumerate(run.starts()):
        if index % 2 == 0:
            axes.axvspan(start, start + stage.tokens, color=light("band"), lw=0, zorder=0)
    axes.xaxis.set_major_locator(MaxNLocator(ticks))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda tokens, _: short_count(tokens)))
    axes.grid(axis="y")
    axes.spines["left"].set_visible(False)
    if label:
        axes.set_xlabel("tokens seen")


def loss_axis(axes: Axes, losses: Sequence[float]) -> None:
    """Set up a logarithmic axis of nats around `losses`, with readable ticks."""
    known = [loss for loss in losses if loss > 0]
    low, high = (min(known) * 0.95, max(known) * 1.05) if known else (1.0, 10.0)
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    ticks: list[float] = [tick for tick in LOSS_TICKS if low <= tick <= high]
    if len(ticks) < 2:
        ticks = list(MaxNLocator(4).tick_values(low, high))
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_ylim(low, high)
    axes.yaxis.set_minor_locator(NullLocator())


def log_axis(axes: Axes, values: Sequence[float]) -> None:
    """Set up a logarithmic axis for `values`, with ticks at 1, 2 and 5 times powers of ten."""
    known = [value for value in values if value > 0]
    low, high = (min(known) * 0.85, max(known) * 1.2) if known else (0.1, 1.0)
    axes.set_yscale("log")
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if len(exponents) < 4 else (1,)
    ticks = [step * 10.0**exponent for exponent in exponents for step in steps]
    ticks = [tick for tick in ticks if low <= tick <= high]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylim(low, high)


def stage_names(layer: Axes, run: RunRecord, across: tuple[float, float], top: float) -> None:
    """Name each band above a plot that spans `across`; narrow bands get a line to their name."""
    scale = (across[1] - across[0]) / max(1.0, run.tokens)
    centres = [across[0] + scale * (start + stage.tokens / 2) for start, stage in run.starts()]
    narrow = across[1] - across[0] < NARROW
    placed = spread(centres, [78.0] * len(centres), across[0] - 4, across[1] + 6)
    for stage, centre, at in zip(run.stages, centres, placed, strict=True):
        text = "{:.2f} → {:.2f}".format(*ends(stage))
        size = 10 if narrow else 11
        layer.text(at, 16, printable(stage.name), ha="center", fontsize=size + 1, weight="bold")
        layer.text(at, 33, text, ha="center", fontsize=size, color=light("soft"))
        layer.plot([at, centre], [40, top - 4], color=light("mute"), lw=1)
        layer.plot([centre, centre], [top - 4, top + 4], color=light("mute"), lw=1)


def ends(stage: StageRecord) -> tuple[float, float]:
    """Return the training loss at the start and at the end of a stage, smoothed."""
    values = smoothed(stage_curve(0.0, stage, lambda step: step.loss, POINTS)[1])
    return (values[0], values[-1]) if values else (math.nan, math.nan)
