"""The cost of training: predicted loss over money, a line for each model."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mobilemoe.page.canvas import NARROW, Draw, new_figure, panel, sheet
from mobilemoe.page.markup import escape, printable
from mobilemoe.page.style import light
from mobilemoe.plan.pictures.axis import (
    colour,
    count_text,
    linear_scale,
    log_padded,
    log_scale,
    money_text,
    padded,
    power_text,
)
from mobilemoe.plan.pictures.cost import CostCurve, CostPoint, Costs
from mobilemoe.plan.pictures.drawing import Drawing
from mobilemoe.plan.pictures.legend import Key, legend, legend_height

_MARKS = ("o", "s", "^", "D", "v", "P")


def cost_drawing(costs: Costs) -> Drawing:
    """Return the figure of money against loss (against FLOPs where no loss is known)."""
    caption = (
        f"Pre-training on {costs.gpus} {escape(costs.gpu)}, priced by the hour; every point is one "
        "number of tokens, the same ones for each model."
    )
    if any(point.loss is not None for curve in costs.curves for point in curve.points):
        caption += " Filled: the law was fitted there; hollow: it is extrapolated."
    return Drawing("cost", cost_words(costs), caption, cost_figure(costs))


def cost_words(costs: Costs) -> str:
    """Return the cheapest and the dearest point of each model, in a sentence."""
    parts = [
        f"{curve.trainee.name} from {_point_words(curve.points[0])} to "
        f"{_point_words(curve.points[-1])}"
        for curve in costs.curves
        if curve.points
    ]
    return f"Cost of training on {costs.gpus} {costs.gpu}: {'; '.join(parts)}."


def _point_words(point: CostPoint) -> str:
    loss = "" if point.loss is None else f" at loss {point.loss:.3f}"
    return f"{money_text(point.money)} for {count_text(point.tokens)} tokens{loss}"


def cost_figure(costs: Costs) -> Draw:
    """Return the drawing: money across on a log axis, loss up."""
    return lambda width: _draw(costs, width)


def _draw(costs: Costs, width: int) -> Figure:
    keys = [_key(curve, _MARKS[i % len(_MARKS)]) for i, curve in enumerate(costs.curves)]
    head = legend_height(keys, width) + 26
    left, foot, tall = 54, 44, 280 if width > NARROW else 240
    figure = new_figure(width, head + tall + foot)
    axes = panel(figure, left, head, width - left - 16, tall)
    legend(sheet(figure), keys, 0, 0, width)
    points = [point for curve in costs.curves for point in curve.points]
    has_loss = any(point.loss is not None for point in points)
    low, high = log_padded(point.money for point in points)
    log_scale(axes, "x", low, high, ticks=8 if width > NARROW else 4, form=money_text)
    if has_loss:
        axes.set_ylim(*padded((p.loss for p in points if p.loss is not None), 0.1))
        linear_scale(axes, "y", ticks=6, form=lambda loss: f"{loss:.2f}")
    else:
        log_scale(axes, "y", *log_padded(p.flops for p in points), ticks=6, form=power_text)
    axes.grid(axis="y")
    axes.set_xlabel("money for pre-training")
    text = "predicted loss" if has_loss else "training FLOPs"
    axes.set_title(text, loc="left", fontsize=11, color=light("soft"), pad=5, x=-0.01)
    for index, curve in enumerate(costs.curves):
        _curve(axes, curve, _MARKS[index % len(_MARKS)], has_loss, named=index == 0)
    return figure


def _key(curve: CostCurve, mark: str) -> Key:
    tint = colour(curve.trainee.expert_equivalents)
    return Key(printable(curve.trainee.name), tint, "line", mark=mark)


def _curve(axes: Axes, curve: CostCurve, mark: str, has_loss: bool, named: bool) -> None:
    """Draw one model's line and its points; if `named`, both ends say their tokens."""
    tint = colour(curve.trainee.expert_equivalents)
    known = [point for point in curve.points if point.loss is not None or not has_loss]
    at = [(p.money, p.loss if has_loss and p.loss is not None else p.flops) for p in known]
    axes.plot([x for x, _ in at], [y for _, y in at], color=tint, lw=1.6)
    for point, (x, y) in zip(known, at, strict=True):
        inside = light("paper") if point.outside else tint
        axes.plot(x, y, mark, ms=6.5, mfc=inside, mec=tint, mew=1.6, zorder=4)
    for index in sorted({0, len(at) - 1}) if named and at else ():
        axes.annotate(
            count_text(known[index].tokens),
            at[index],
            xytext=(0, 8),
            textcoords="offset points",
            ha="center",
            fontsize=10,
            color=light("soft"),
            annotation_clip=False,
        )
