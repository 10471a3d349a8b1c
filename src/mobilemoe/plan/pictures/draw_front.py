"""The Pareto front: loss against memory, against speed, and against the cost of training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mobilemoe.page.canvas import NARROW, Draw, new_figure, panel, sheet
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
    power_text,
)
from mobilemoe.plan.pictures.drawing import Drawing
from mobilemoe.plan.pictures.front import FrontPoint
from mobilemoe.plan.pictures.legend import Key, expert_keys, legend, legend_height

CAPTION = (
    "Every model that no other one beats in all of loss, memory, decode speed and training cost at "
    "once. Ringed: the choice, which a convention may put beside the front. Hollow: the law was "
    "not fitted there. Models within the bar of each other, the fit's error, cannot be told apart "
    "by loss."
)


@dataclass(frozen=True)
class _View:
    title: str
    of: Callable[[FrontPoint], float | None]
    form: Format


_VIEWS = (
    _View("memory: INT4 weights and KV cache", lambda point: point.memory_bytes, bytes_text),
    _View("decode speed, tokens/s", lambda point: point.decode_tok_s, lambda v: f"{v:.3g}"),
    _View("training FLOPs", lambda point: point.training_flops, power_text),
)


def front_drawing(points: Sequence[FrontPoint], rmse: float = 0.0) -> Drawing:
    """Return the figure of the front; `rmse` is the fit's error, drawn to scale."""
    return Drawing("front", front_words(points), CAPTION, front_figure(points, rmse))


def front_words(points: Sequence[FrontPoint]) -> str:
    """Return the chosen model and the span of the front, in sentences."""
    chosen = next((point for point in points if point.chosen), None)
    count = "one model" if len(points) == 1 else f"{len(points)} models"
    words = f"Pareto front of {count}, loss against memory, speed and training FLOPs."
    if chosen is None:
        return words
    loss = "no predicted loss" if chosen.loss is None else f"predicted loss {chosen.loss:.3f}"
    speed = "" if chosen.decode_tok_s is None else f", {chosen.decode_tok_s:.3g} tokens/s"
    return (
        f"{words} Chosen: {chosen.name}, {loss}, "
        f"{bytes_text(chosen.memory_bytes)}{speed}, {power_text(chosen.training_flops)} FLOPs."
    )


def front_figure(points: Sequence[FrontPoint], rmse: float = 0.0) -> Draw:
    """Return the drawing; without any loss the height is active parameters instead."""
    return lambda width: _draw(points, rmse, width)


def _draw(points: Sequence[FrontPoint], rmse: float, width: int) -> Figure:
    views = [view for view in _VIEWS if _tells(view, points)] or list(_VIEWS[:1])
    keys = _keys(points)
    beside = width > NARROW
    columns = len(views) if beside else 1
    head, title, foot, left, gap = legend_height(keys, width) + 10, 24, 32, 44, 14
    tall = 270 if beside else 190
    wide = (width - gap * (columns - 1) - left) / max(1, columns) - 10
    row = title + tall + foot
    figure = new_figure(width, head + row * (1 if beside else len(views)))
    legend(sheet(figure), keys, 0, 0, width)
    for index, view in enumerate(views):
        column, line = (index, 0) if beside else (0, index)
        place = (left + column * (wide + 10 + gap), head + line * row + title, wide, tall)
        axes = panel(figure, *place)
        _panel(axes, points, view, ticks=3 if beside and columns > 2 else 4)
        _height(axes, points, rmse, named=column == 0)
        axes.set_title(view.title, loc="left", fontsize=11, color=light("soft"), pad=7, x=0.02)
    return figure


def _keys(points: Sequence[FrontPoint]) -> list[Key]:
    experts = sorted({point.expert_equivalents for point in points})
    keys = expert_keys(experts, "dot")
    if any(point.outside for point in points):
        keys.append(Key("law not fitted there", light("soft"), "ring"))
    return keys


def _tells(view: _View, points: Sequence[FrontPoint]) -> bool:
    """Whether the members differ in this; at one training budget they all cost the same."""
    known = [value for value in map(view.of, points) if value is not None]
    return bool(known) and (len(points) == 1 or max(known) > 1.001 * min(known))


def _panel(axes: Axes, points: Sequence[FrontPoint], view: _View, ticks: int) -> None:
    values = [view.of(point) for point in points]
    low, high = log_padded((value for value in values if value is not None), 1.2)
    log_scale(axes, "x", low, high, ticks=ticks, form=view.form)
    axes.grid(axis="y")
    axes.spines["left"].set_visible(False)
    for point, x in sorted(zip(points, values, strict=True), key=lambda pair: pair[0].chosen):
        y = _y(point, points)
        if x is None or y is None:
            continue
        tint = colour(point.expert_equivalents)
        inside = light("paper") if point.outside else tint
        axes.plot(x, y, "o", ms=6.5, mfc=inside, mec=tint, mew=1.5, zorder=3, clip_on=False)
        if point.chosen:
            axes.plot(x, y, "o", ms=14, mfc="none", mec=light("ink"), mew=1.8, zorder=5)


def _has_loss(points: Sequence[FrontPoint]) -> bool:
    return any(point.loss is not None for point in points)


def _y(point: FrontPoint, points: Sequence[FrontPoint]) -> float | None:
    return point.loss if _has_loss(points) else point.active_params


def _height(axes: Axes, points: Sequence[FrontPoint], rmse: float, named: bool) -> None:
    values = [y for y in (_y(point, points) for point in points) if y is not None]
    if not _has_loss(points):
        log_scale(axes, "y", *log_padded(values, 1.3), ticks=5, form=count_text)
        _unit(axes, "active", named)
        return
    axes.set_ylim(*padded(values, 0.12, max(2 * rmse, 0.03)))
    linear_scale(axes, "y", ticks=6, form=lambda loss: f"{loss:.2f}")
    _unit(axes, "loss", named)
    if rmse > 0:
        low, high = axes.get_ylim()
        x = axes.get_xlim()[1] * 0.97
        look: dict[str, Any] = {"color": light("mute"), "capsize": 3, "lw": 1.4, "zorder": 1}
        axes.errorbar([x], [high - rmse - 0.03 * (high - low)], yerr=[rmse], **look)


def _unit(axes: Axes, text: str, named: bool) -> None:
    """Write the unit of the height above its ticks, or take the ticks of later panels away."""
    if named:
        look: dict[str, Any] = {
            "fontsize": 11,
            "color": light("soft"),
            "textcoords": "offset points",
        }
        axes.annotate(text, (0, 1), xycoords="axes fraction", xytext=(-44, 6), **look)
    else:
        axes.tick_params(axis="y", labelleft=False)
