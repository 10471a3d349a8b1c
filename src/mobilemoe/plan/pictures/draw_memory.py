"""Memory by part over context: weights as level bands, the KV cache as a growing wedge."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mobilemoe.page.canvas import NARROW, Draw, new_figure, panel, sheet
from mobilemoe.page.markup import count
from mobilemoe.page.style import light
from mobilemoe.plan.pictures.axis import bytes_text, linear_scale
from mobilemoe.plan.pictures.drawing import Drawing
from mobilemoe.plan.pictures.legend import Key, legend, legend_height
from mobilemoe.plan.pictures.memory import KV_CACHE, MemoryParts

CAPTION = (
    "INT4 weights with their scales, as in the file, and the KV cache of so many tokens. Both are "
    "counted, not estimated: the checkpoint writer and the engine follow the same functions. "
    "Dashed: the memory budget."
)
_TINTS: Mapping[str, str] = {
    "embedding": "mute",
    "attention": "soft",
    "feed-forward": "dense-soft",
    "shared expert": "experts-4",
    "routed experts": "moe-soft",
    "router": "experts-16",
    "norms": "ink",
    KV_CACHE: "heat-less-3",
}


def memory_drawing(parts: MemoryParts, budget: float | None = None) -> Drawing:
    """Return the figure of one model's memory; `budget` [bytes] is drawn as a limit."""
    return Drawing("memory", memory_words(parts), CAPTION, memory_figure(parts, budget))


def memory_words(parts: MemoryParts) -> str:
    """Return the largest context's bytes by part, in a sentence."""
    at = ", ".join(f"{name} {bytes_text(sizes[-1])}" for name, sizes in parts.parts.items())
    total = bytes_text(parts.totals[-1])
    return f"Memory by part over context; at {count(parts.contexts[-1])} tokens {total}: {at}."


def memory_figure(parts: MemoryParts, budget: float | None = None) -> Draw:
    """Return the drawing of the stacked parts over context."""
    return lambda width: _draw(parts, budget, width)


def _draw(parts: MemoryParts, budget: float | None, width: int) -> Figure:
    keys = [Key(name, light(_TINTS[name])) for name in parts.parts]
    head = legend_height(keys, width) + 14
    left, right, foot, tall = 58, 22, 44, 260 if width > NARROW else 220
    figure = new_figure(width, head + tall + foot)
    axes = panel(figure, left, head, width - left - right, tall)
    legend(sheet(figure), keys, 0, 0, width)
    _stack(axes, parts)
    top = max(parts.totals)
    near = budget is not None and budget < 3 * top
    axes.set_ylim(0, 1.08 * max(top, budget if near and budget else 0, 1))
    axes.set_xlim(parts.contexts[0], max(parts.contexts[-1], parts.contexts[0] + 1))
    ticks = (
        parts.contexts if width > NARROW else parts.contexts[:: max(1, len(parts.contexts) // 3)]
    )
    axes.set_xticks(ticks, [f"{context:,}" for context in ticks])
    linear_scale(axes, "y", ticks=5, form=lambda v: bytes_text(v) if v else "0")
    axes.set_xlabel("context, tokens")
    axes.grid(axis="y")
    if budget is not None:
        _limit(axes, budget, near)
    return figure


def _stack(axes: Axes, parts: MemoryParts) -> None:
    x = list(parts.contexts)
    floor = [0] * len(x)
    for name, sizes in parts.parts.items():
        roof = [low + size for low, size in zip(floor, sizes, strict=True)]
        # A single context has no area: it becomes a bar over the whole axis.
        across = x if len(x) > 1 else [x[0], x[0] + 1]
        low, high = (floor, roof) if len(x) > 1 else (floor * 2, roof * 2)
        axes.fill_between(across, low, high, color=light(_TINTS[name]), lw=0)
        floor = roof


def _limit(axes: Axes, budget: float, near: bool) -> None:
    """Draw the budget as a line, or say where it is if that is far above."""
    left = axes.get_xlim()[0]
    look: dict[str, Any] = {"fontsize": 11, "annotation_clip": False, "textcoords": "offset points"}
    text = f"budget {bytes_text(budget)}"
    if near:
        axes.axhline(budget, color=light("ink"), lw=1.4, ls=(0, (5, 3)))
        axes.annotate(text, (left, budget), xytext=(4, -12), **look)
    else:
        axes.annotate(f"{text}, far above", (left, axes.get_ylim()[1]), xytext=(4, -12), **look)
