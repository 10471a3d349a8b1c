"""Figures of the model itself: its shape beside its dense twin, and what its experts do."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, PathPatch, Rectangle
from matplotlib.path import Path

from mobilemoe.demo.schema import Experts, Shape
from mobilemoe.page.canvas import NARROW, new_figure, responsive, sheet
from mobilemoe.page.markup import TIMES, finite, short_count
from mobilemoe.page.style import light

# Use of an expert against uniform use: below which ratio each class of the heat map ends.
HEAT_CLASSES: tuple[tuple[float, str, str], ...] = (
    (0.25, "heat-less-3", "under \u00bc\u00d7"),
    (0.5, "heat-less-2", "\u00bc to \u00bd\u00d7"),
    (0.8, "heat-less-1", "\u00bd to 0.8\u00d7"),
    (1.25, "heat-even", "about even"),
    (2.0, "heat-more-1", "1.25 to 2\u00d7"),
    (4.0, "heat-more-2", "2 to 4\u00d7"),
    (math.inf, "heat-more-3", "over 4\u00d7"),
)


@dataclass(frozen=True)
class Parts:
    """Where the parameters of a shape are; `idle` are routed experts a token leaves alone."""

    embedding: int
    always: int
    chosen: int
    idle: int


def parts(shape: Shape) -> Parts:
    """Split the parameters of a shape with tied embeddings by when a token uses them."""
    E, K = shape["num_local_experts"], shape["num_experts_per_tok"]
    idle = shape["total_params"] - shape["active_params"]
    chosen = idle * K // (E - K) if E > K else 0
    embedding = shape["vocab_size"] * shape["hidden_size"]
    return Parts(embedding, shape["active_params"] - chosen - embedding, chosen, idle)


def architecture_figure(chosen: Shape, twin: Shape) -> str:
    """Return both models as stacks of blocks, with their parameters to scale."""
    words = f"{chosen['name']} beside {twin['name']}: one layer each, and parameters to scale"
    return responsive("architecture", words, lambda width: _draw_pair(chosen, twin, width))


def experts_figure(experts: Experts) -> str:
    """Return the heat map of expert use: a block for each layer, a row for each domain."""
    words = "Use of each expert by each domain against uniform use, for every layer"
    return responsive("experts", words, lambda width: _draw_experts(experts, width))


def expert_order(layer: Sequence[Sequence[float | None]]) -> list[int]:
    """Return the experts of a layer sorted by the domain that prefers them, strongest first."""

    def key(expert: int) -> tuple[int, float, int]:
        use = [finite(row[expert]) or 0.0 for row in layer]
        mean = sum(use) / len(use)
        if mean == 0:
            return (len(layer), 0.0, expert)
        best = max(range(len(use)), key=lambda domain: use[domain])
        return (best, -use[best] / mean, expert)

    return sorted(range(len(layer[0]) if layer else 0), key=key)


def _draw_pair(chosen: Shape, twin: Shape, width: int) -> Figure:
    figure = new_figure(width, 470)
    layer = sheet(figure)
    gap = 48 if width > NARROW else 18
    wide = (width - gap) / 2
    for shape, left, colour in ((chosen, 0.0, "moe"), (twin, wide + gap, "dense")):
        size = min(13.5, 1.5 * wide / max(1, len(shape["name"])))  # long names must fit
        layer.text(left, 15, shape["name"], weight="bold", fontsize=size, color=light(colour))
        _stack(layer, shape, left, wide, colour)
    _scale_bars(layer, chosen, twin, width, 372)
    return figure


def _stack(layer: Axes, shape: Shape, left: float, wide: float, colour: str) -> None:
    """Draw embedding, one layer and the head, from the bottom up."""
    vocabulary = f"{shape['vocab_size']:,} {TIMES} {shape['hidden_size']}"
    narrow = wide < 250
    head = "tied head" if narrow else f"output head, tied: {vocabulary}"
    foot = vocabulary if narrow else f"embedding {vocabulary}"
    _block(layer, (left, 30, wide, 30), head, "panel")
    _frame(layer, (left, 76, wide, 194))
    layer.text(
        left + wide - 9,
        95,
        f"{TIMES} {shape['num_hidden_layers']} layers",
        ha="right",
        fontsize=11.5,
        weight="bold",
    )
    _feed_forward(layer, shape, (left + 10, 104, wide - 20, 112), colour)
    heads = f"{shape['num_attention_heads']} heads, {shape['num_key_value_heads']} KV"
    text = heads if narrow else f"attention, {heads}"
    _block(layer, (left + 10, 228, wide - 20, 32), text, f"{colour}-soft")
    _block(layer, (left, 286, wide, 30), foot, "panel")
    for low, high in ((76, 60), (286, 270)):
        _arrow(layer, left + wide / 2, low, high)


def _feed_forward(
    layer: Axes, shape: Shape, box: tuple[float, float, float, float], colour: str
) -> None:
    left, top, wide, tall = box
    experts = shape["num_local_experts"]
    if not experts:
        text = f"SwiGLU, {shape['intermediate_size_mlp']} wide"
        _block(layer, box, text, f"{colour}-soft")
        return
    shared = shape["intermediate_size_mlp"]
    grid_width = wide * 0.68 if shared else wide
    text = f"{shape['num_experts_per_tok']} of {experts}"
    size = f", {shape['intermediate_size']} wide" if wide > 250 else ""
    layer.text(left, top + 12, f"{text} experts{size}", fontsize=11, color=light("soft"))
    _expert_grid(layer, shape, (left, top + 22, grid_width, tall - 22), colour)
    if shared:
        at = (left + grid_width + 10, top + 22, wide - grid_width - 10, tall - 22)
        text = f"shared\n{shared} wide" if wide > 250 else f"{shared}"
        _block(layer, at, text, f"{colour}-soft")
        if wide <= 250:
            layer.text(
                left + wide, top + 12, "shared", ha="right", fontsize=11, color=light("soft")
            )


def _expert_grid(
    layer: Axes, shape: Shape, box: tuple[float, float, float, float], colour: str
) -> None:
    left, top, wide, tall = box
    experts, active = shape["num_local_experts"], shape["num_experts_per_tok"]
    columns = max(1, math.ceil(math.sqrt(experts * wide / tall)))
    rows = math.ceil(experts / columns)
    lit = set(random.Random(experts).sample(range(experts), active))  # scattered, as in use
    step_x, step_y = wide / columns, tall / rows
    for expert in range(experts):
        row, column = divmod(expert, columns)
        corner = (left + column * step_x, top + row * step_y)
        fill = light(colour if expert in lit else "heat-even")
        edge = light(colour if expert in lit else "mute")
        size = (step_x - 3, step_y - 3)
        layer.add_patch(Rectangle(corner, *size, facecolor=fill, edgecolor=edge, lw=0.7))


def _block(layer: Axes, box: tuple[float, float, float, float], text: str, fill: str) -> None:
    left, top, wide, tall = box
    style = "round,pad=0,rounding_size=4"
    edge = light("rule" if fill == "panel" else fill)
    layer.add_patch(
        FancyBboxPatch(
            (left + 0.5, top),
            wide - 1,
            tall,
            boxstyle=style,
            facecolor=light(fill),
            edgecolor=edge,
            lw=1,
        )
    )
    layer.text(
        left + wide / 2,
        top + tall / 2,
        text,
        ha="center",
        va="center_baseline",
        fontsize=11.5,
        linespacing=1.4,
    )


def _frame(layer: Axes, box: tuple[float, float, float, float]) -> None:
    left, top, wide, tall = box
    style = "round,pad=0,rounding_size=7"
    layer.add_patch(
        FancyBboxPatch(
            (left + 0.5, top),
            wide - 1,
            tall,
            boxstyle=style,
            facecolor="none",
            edgecolor=light("mute"),
            lw=1,
        )
    )


def _arrow(layer: Axes, x: float, low: float, high: float) -> None:
    layer.plot([x, x], [low, high + 5], color=light("mute"), lw=1.2)
    layer.plot([x - 3.5, x, x + 3.5], [high + 6, high + 1, high + 6], color=light("mute"), lw=1.2)


def _scale_bars(layer: Axes, chosen: Shape, twin: Shape, width: int, top: float) -> None:
    """Draw total parameters as bars: strong colour for what one token uses."""
    layer.text(
        0,
        top - 20,
        "Parameters to scale; strong colour: used by one token",
        fontsize=11,
        color=light("soft"),
    )
    scale = width / max(chosen["total_params"], twin["total_params"])
    for index, (shape, colour) in enumerate(((chosen, "moe"), (twin, "dense"))):
        y = top + 48 * index
        split = parts(shape)
        used = shape["active_params"] * scale
        layer.add_patch(Rectangle((0, y), used, 22, facecolor=light(colour), lw=0))
        rest = split.idle * scale
        layer.add_patch(Rectangle((used, y), rest, 22, facecolor=light(f"{colour}-soft"), lw=0))
        total, active = short_count(shape["total_params"]), short_count(shape["active_params"])
        share = 100 * shape["active_params"] / shape["total_params"]
        text = f"{total} parameters, {active} for each token ({share:.0f}%)"
        layer.text(0, y + 36, text, fontsize=11, color=light(colour))


def _draw_experts(experts: Experts, width: int) -> Figure:
    layers, domains = experts["share"], experts["domains"]
    row = 15 if width > NARROW else 13
    left = 84.0 if width > NARROW else 76.0
    block = row * len(domains) + 22
    figure = new_figure(width, max(1, len(layers)) * block + 18)
    canvas = sheet(figure)
    for index, share in enumerate(layers):
        top = index * block + 17.0
        canvas.text(left, top - 5, f"layer {index}", fontsize=10.5, color=light("soft"))
        for line, domain in enumerate(domains):
            canvas.text(
                left - 8,
                top + row * (line + 0.5),
                domain,
                ha="right",
                va="center_baseline",
                fontsize=11,
            )
        _heat_block(canvas, share, (left, top, width - left - 1, row))
    count = len(layers[0][0]) if layers and layers[0] else 0
    text = f"{count} experts, sorted in each layer by the domain that uses them most"
    short = f"{count} experts, sorted by preferred domain"
    foot = len(layers) * block + 12
    canvas.text(
        width,
        foot,
        text if width > NARROW else short,
        ha="right",
        fontsize=10.5,
        color=light("soft"),
    )
    return figure


def _heat_block(
    canvas: Axes, share: Sequence[Sequence[float | None]], box: tuple[float, float, float, float]
) -> None:
    """Draw one layer; the cells of one class are one path, so that the page stays small."""
    left, top, wide, row = box
    order = expert_order(share)
    step = wide / max(1, len(order))
    cells: dict[str, list[Path]] = {}
    for line, use in enumerate(share):
        for column, expert in enumerate(order):
            value = finite(use[expert])
            if value is not None:
                name = heat_class(value * len(order))
                x, y = left + column * step, top + line * row
                cells.setdefault(name, []).append(_cell(x, y, step - 1, row - 1))
    for name, paths in cells.items():
        shape = Path.make_compound_path(*paths)
        canvas.add_patch(PathPatch(shape, facecolor=light(name), lw=0))


def heat_class(ratio: float) -> str:
    """Return the colour name for a use of `ratio` times the uniform one."""
    return next(name for limit, name, _ in HEAT_CLASSES if ratio < limit)


def _cell(x: float, y: float, wide: float, tall: float) -> Path:
    right, bottom = x + wide, y + tall
    return Path([(x, y), (right, y), (right, bottom), (x, bottom), (x, y)], closed=True)
