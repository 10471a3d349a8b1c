"""The budget regions as a map: memory across, training FLOPs up, coloured by the best E."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mobilemoe.page.canvas import NARROW, Draw, new_figure, panel, sheet
from mobilemoe.page.style import light
from mobilemoe.plan.pictures.axis import (
    bytes_text,
    colour,
    experts_label,
    log_scale,
    power_text,
)
from mobilemoe.plan.pictures.drawing import Drawing
from mobilemoe.plan.pictures.legend import Key, expert_keys, legend, legend_height
from mobilemoe.plan.pictures.regions import Regions
from mobilemoe.plan.pictures.sizes import Floats

FAINT = 0.42  # of a colour where the law is outside its fitted range
Budget = tuple[float, float]  # memory [bytes], training [FLOPs]

CAPTION = (
    "The expert count with the lowest predicted loss, for every memory budget (INT4 weights and "
    "the KV cache) and training budget (6 FLOPs per active parameter and token). Each E takes its "
    "best size that fits the memory. Full colour: the law was fitted there; pale: it is "
    "extrapolated and must not be relied on. Hatched: the runner-up is within the fit's error. "
    "Line: where the best mixture of experts and the dense model break even."
)


def regions_drawing(found: Regions, budget: Budget | None = None) -> Drawing:
    """Return the figure of `found`; `budget` marks one pair of budgets."""
    return Drawing("regions", regions_words(found), CAPTION, regions_figure(found, budget))


def regions_words(found: Regions) -> str:
    """Return what the map shows, in sentences."""
    winners = found.winner_CM[found.fits_CM]
    shares = [
        f"{experts_label(each)} in {np.mean(winners == index):.0%}"
        for index, each in enumerate(found.experts)
        if winners.size and (winners == index).any()
    ]
    words = "Map of the expert count with the lowest predicted loss over memory and training FLOPs"
    if not shares:
        return f"{words}: nothing fits."
    trusted, tied = found.trusted_CM.mean(), found.tied_CM.mean()
    return (
        f"{words}, by share of the map: {', '.join(shares)}. The law was fitted in {trusted:.0%} "
        f"of it; in {tied:.0%} the runner-up is within the fit's error of {found.rmse:g}."
    )


def regions_figure(found: Regions, budget: Budget | None = None) -> Draw:
    """Return the drawing of the map: full colour where the law was fitted, pale elsewhere."""
    return lambda width: _draw(found, budget, width)


def _draw(found: Regions, budget: Budget | None, width: int) -> Figure:
    keys = _keys(found)
    head = legend_height(keys, width) + 26
    left, foot, tall = 54, 44, 360 if width > NARROW else 280
    figure = new_figure(width, head + tall + foot)
    axes = panel(figure, left, head, width - left - 10, tall)
    ticks = 9 if width > NARROW else 5
    M, C = found.memory_M, found.flops_C
    log_scale(axes, "x", M[0], M[-1], ticks=ticks, form=bytes_text)
    log_scale(axes, "y", C[0], C[-1], ticks=9, form=power_text)
    axes.set_xlabel("memory budget")
    axes.set_title("training FLOPs", loc="left", fontsize=11, color=light("soft"), pad=10, x=-0.01)
    legend(sheet(figure), keys, 0, 0, width)
    if min(len(M), len(C)) > 1:
        _fill(axes, found)
        _even_line(axes, found)
    if budget is not None:
        _mark(axes, budget)
    return figure


def _keys(found: Regions) -> list[Key]:
    seen = np.unique(found.winner_CM[found.fits_CM])
    keys = expert_keys([found.experts[index] for index in seen], "square")
    pale = Key("extrapolated", light("moe"), alpha=FAINT)
    tied = Key("runner-up within the error", light("panel"), "hatch")
    even = Key("MoE = dense", light("ink"), "line")
    extra = [(pale, ~found.trusted_CM), (tied, found.tied_CM), (even, found.dense_gain_CM > 0)]
    return keys + [key for key, where in extra if where.any()]


def _fill(axes: Axes, found: Regions) -> None:
    """Colour where each E wins: pale everywhere, and again in full where the law was fitted."""
    for index, experts in enumerate(found.experts):
        lead = np.where(found.fits_CM, _lead(found.loss_ECM, index), -1.0)
        _area(axes, found, lead, colour(experts), alpha=FAINT)
        _area(axes, found, np.minimum(lead, found.winner_reach_CM), colour(experts))
    tied = np.where(found.fits_CM, np.clip(found.rmse - found.margin_CM, -1, 1), -1.0)
    _area(axes, found, tied, "none", alpha=None, hatch="////")


def _area(
    axes: Axes,
    found: Regions,
    level_CM: Floats,
    fill: str,
    alpha: float | None = 1,
    hatch: str = "",
) -> None:
    """Fill where `level_CM` is positive; its zero is found between the cells."""
    if not (level_CM > 0).any():
        return
    look: dict[str, Any] = {
        "levels": [0, 1e9],
        "colors": [fill],
        "hatches": [hatch or None],
        "alpha": alpha,
    }
    drawn = axes.contourf(found.memory_M, found.flops_C, level_CM, **look)
    drawn.set(edgecolor=light("mute") if hatch else "none", linewidth=0)


def _lead(loss_ECM: Floats, index: int) -> Floats:
    """Return by how much E number `index` beats the best of the others, within -1 and 1."""
    mine = np.nan_to_num(loss_ECM[index], nan=1e6)
    others = np.delete(loss_ECM, index, axis=0)
    if not len(others):
        return np.where(mine < 1e6, 1.0, -1.0)
    best = np.nan_to_num(others, nan=1e6).min(axis=0)
    lead: Floats = np.clip(best - mine, -1.0, 1.0)
    return lead


def _even_line(axes: Axes, found: Regions) -> None:
    gain = np.nan_to_num(found.dense_gain_CM, nan=0.0)
    if (gain > 0).any() and (gain < 0).any():
        look: dict[str, Any] = {"levels": [0], "colors": [light("ink")], "linewidths": 1.8}
        axes.contour(found.memory_M, found.flops_C, gain, **look)


def _mark(axes: Axes, budget: Budget) -> None:
    memory, flops = budget
    (low, high), (few, many) = axes.get_xlim(), axes.get_ylim()
    if not (low <= memory <= high and few <= flops <= many):
        return
    look: dict[str, Any] = {"mfc": light("paper"), "mec": light("ink"), "mew": 2}
    axes.plot(memory, flops, "o", ms=9, zorder=6, **look)
    right = np.log(memory / low) > 0.7 * np.log(high / low)
    axes.annotate(
        "this budget",
        (memory, flops),
        xytext=(-9 if right else 9, 9),
        textcoords="offset points",
        ha="right" if right else "left",
        fontsize=11,
        weight="bold",
        bbox={"facecolor": light("paper"), "edgecolor": "none", "pad": 1.5, "alpha": 0.8},
        zorder=7,
    )
