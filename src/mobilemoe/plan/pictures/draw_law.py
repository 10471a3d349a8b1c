"""The law's curves: loss over active parameters, and over tokens, one line for each E."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mobilemoe.page.canvas import NARROW, Draw, new_figure, panel, sheet
from mobilemoe.page.style import light
from mobilemoe.plan.pictures.axis import (
    colour,
    count_text,
    experts_label,
    linear_scale,
    log_scale,
    padded,
)
from mobilemoe.plan.pictures.drawing import Drawing
from mobilemoe.plan.pictures.law_curves import LawCurve, LawCurves
from mobilemoe.plan.pictures.legend import expert_keys, legend, legend_height

CAPTION = (
    "Predicted pre-training loss in nats per token. Band: where the law was fitted; dotted: "
    "extrapolated, and known to mislead. The bar shows the fit's error: curves nearer than that "
    "cannot be told apart."
)


def law_drawing(curves: LawCurves) -> Drawing:
    """Return the figure of both families of curves."""
    return Drawing("law", law_words(curves), CAPTION, law_figure(curves))


def law_words(curves: LawCurves) -> str:
    """Return each E's loss at the point that both panels share."""
    at = [
        f"{experts_label(c.expert_equivalents)} {_at(c, curves.active_params):.3f}"
        for c in curves.over_active
    ]
    return (
        f"Predicted loss over active parameters and over tokens. At "
        f"{count_text(curves.active_params)} active parameters and {count_text(curves.tokens)} "
        f"tokens: {', '.join(at)}, each within {curves.rmse:g}."
    )


def _at(curve: LawCurve, x: float) -> float:
    nearest = min(range(len(curve.x)), key=lambda index: abs(curve.x[index] - x))
    return curve.loss[nearest]


def law_figure(curves: LawCurves) -> Draw:
    """Return the drawing: two panels beside each other, or one above the other on a phone."""
    return lambda width: _draw(curves, width)


def _draw(curves: LawCurves, width: int) -> Figure:
    keys = expert_keys([curve.expert_equivalents for curve in curves.over_active], "line")
    beside = width > NARROW
    head, title, foot, tall, left, gap = legend_height(keys, width) + 8, 26, 40, 230, 42, 24
    columns = 2 if beside else 1
    wide = (width - gap * (columns - 1)) / columns - left - 8
    row = title + tall + foot
    figure = new_figure(width, head + row * (1 if beside else 2))
    legend(sheet(figure), keys, 0, 0, width)
    at_tokens = f"active parameters, at {count_text(curves.tokens)} tokens"
    at_active = f"training tokens, at {count_text(curves.active_params)} active"
    panels = (
        (curves.over_active, curves.active_range, at_tokens),
        (curves.over_tokens, curves.token_range, at_active),
    )
    for index, (family, fitted, text) in enumerate(panels):
        column, line = (index, 0) if beside else (0, index)
        place = (column * (wide + left + 8 + gap) + left, head + line * row + title)
        axes = panel(figure, *place, wide, tall)
        _panel(axes, family, fitted, curves.rmse)
        axes.set_title(text, loc="left", fontsize=11, color=light("soft"), pad=6, x=0)
    return figure


def _panel(
    axes: Axes, family: Sequence[LawCurve], fitted: tuple[float, float], rmse: float
) -> None:
    low, high = family[0].x[0], family[0].x[-1]
    log_scale(axes, "x", low, high, ticks=6, form=count_text)
    axes.axvspan(*fitted, color=light("band"), lw=0, zorder=0)
    for curve in family:
        tint = colour(curve.expert_equivalents)
        axes.plot(curve.x, curve.loss, color=tint, lw=1.5, ls=(0, (1, 1.8)))
        inside = [
            loss if ok else float("nan") for loss, ok in zip(curve.loss, curve.inside, strict=True)
        ]
        axes.plot(curve.x, inside, color=tint, lw=2.2)
    axes.set_ylim(*padded(loss for curve in family for loss in curve.loss))
    linear_scale(axes, "y", ticks=5, form=lambda loss: f"{loss:.2f}")
    axes.grid(axis="y")
    axes.spines["left"].set_visible(False)
    _error_bar(axes, rmse)


def _error_bar(axes: Axes, rmse: float) -> None:
    """Show the fit's error to scale, top right, where curves of loss never are."""
    low, high = axes.get_ylim()
    top = high - 0.05 * (high - low)
    x = axes.get_xlim()[1] * 0.92
    look: dict[str, Any] = {"color": light("ink"), "capsize": 3, "lw": 1.4}
    axes.errorbar([x], [top - rmse], yerr=[rmse], **look)
    axes.annotate(
        f"±{rmse:.2g}",
        (x, top - rmse),
        xytext=(-8, 0),
        textcoords="offset points",
        ha="right",
        va="center_baseline",
        fontsize=10.5,
        color=light("soft"),
    )
