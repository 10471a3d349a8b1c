"""Matplotlib figures as inline SVG: sized in CSS pixels, readable text, colours of the page.

A figure is drawn twice, wide for a desktop and narrow for a phone; CSS shows one of them.
Nothing global is touched: no pyplot, and the style is set for one drawing at a time.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal

from matplotlib import style as matplotlib_style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mobilemoe.page.markup import escape
from mobilemoe.page.style import PALETTE, light

WIDE = 860
NARROW = 358
Draw = Callable[[int], Figure]

_RC: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 12,
    "text.color": light("ink"),
    "text.parse_math": False,
    "axes.edgecolor": light("mute"),
    "axes.facecolor": "none",
    "axes.labelcolor": light("soft"),
    "axes.linewidth": 1,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "figure.facecolor": "none",
    "figure.edgecolor": "none",
    "grid.color": light("rule"),
    "grid.linewidth": 1,
    "xtick.color": light("mute"),
    "ytick.color": light("mute"),
    "xtick.labelcolor": light("soft"),
    "ytick.labelcolor": light("soft"),
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "lines.solid_capstyle": "round",
}


def responsive(name: str, label: str, draw: Draw) -> str:
    """Return both drawings of one figure as HTML.

    `name` makes ids unique on the page; `label` is what a screen reader says; `draw` takes
    a width in CSS pixels and returns the figure.
    """
    wide = _inline_svg(f"{name}-w", label, draw, WIDE)
    narrow = _inline_svg(f"{name}-n", label, draw, NARROW)
    return f'<div class="wide">{wide}</div><div class="narrow">{narrow}</div>'


def picture(draw: Draw, kind: Literal["svg", "png"]) -> bytes:
    """Return the wide drawing as a file of its own: light, with a background, a PNG at 144 dpi."""
    buffer = io.BytesIO()
    look = {**_RC, "svg.hashsalt": "file"}
    plain: dict[str, Any] = {"Date": None} if kind == "svg" else {"Software": None}
    with matplotlib_style.context(look, after_reset=True):
        draw(WIDE).savefig(buffer, format=kind, metadata=plain, dpi=144, facecolor=light("paper"))
    return buffer.getvalue()


def new_figure(width: int, height: float) -> Figure:
    """Return an empty figure of this size in CSS pixels."""
    return Figure(figsize=(width / 72, height / 72), dpi=72)


def panel(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Add axes at a place given in pixels from the figure's top left corner."""
    whole_width, whole_height = figure.get_size_inches() * 72
    box = (left / whole_width, 1 - (top + height) / whole_height)
    axes = figure.add_axes((*box, width / whole_width, height / whole_height))
    axes.tick_params(length=0, pad=5)
    return axes


def sheet(figure: Figure) -> Axes:
    """Add an invisible layer over the whole figure whose units are pixels, y downwards."""
    width, height = figure.get_size_inches() * 72
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.set_axis_off()
    return axes


def label(
    axes: Axes, text: str, at: tuple[float, float], shift: tuple[float, float], **look: Any
) -> None:
    """Write `text` beside a data point, `shift` pixels right and up of it, over everything."""
    look = {"fontsize": 11, "annotation_clip": False, **look}
    axes.annotate(text, at, xytext=shift, textcoords="offset points", **look)


def spread(
    centres: Sequence[float], widths: Sequence[float], low: float, high: float
) -> list[float]:
    """Move labels apart: near the wanted centres, in order, no overlap if there is room."""
    placed = list(centres)
    edge = low
    for index, width in enumerate(widths):
        placed[index] = max(placed[index], edge + width / 2)
        edge = placed[index] + width / 2
    edge = high
    for index in reversed(range(len(placed))):
        placed[index] = min(placed[index], edge - widths[index] / 2)
        edge = placed[index] - widths[index] / 2
    return placed


def _inline_svg(key: str, label: str, draw: Draw, width: int) -> str:
    buffer = io.StringIO()
    with matplotlib_style.context({**_RC, "svg.hashsalt": key}, after_reset=True):
        draw(width).savefig(buffer, format="svg", metadata={"Date": None})
    return _clean(buffer.getvalue(), key, label)


def _clean(svg: str, key: str, label: str) -> str:
    """Strip what only a file needs, make ids unique, and let the page choose the colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = _rename_ids(svg, key)
    for name, (colour, _) in PALETTE.items():
        svg = svg.replace(colour, f"var(--{name})")
    svg = re.sub(r"font-family: [^;\"]*; ?", "", svg)
    svg = re.sub(r' transform="rotate\(-0 [^"]*"', "", svg)
    view = re.search(r'viewBox="([^"]*)"', svg)
    box = view.group(1) if view else f"0 0 {WIDE} 100"
    start = f'<svg viewBox="{box}" role="img" aria-label="{escape(label)}">'
    return start + re.sub(r"\s*\n\s*", "\n", svg[svg.index(">") + 1 :]).strip()


def _rename_ids(svg: str, key: str) -> str:
    used = dict.fromkeys(re.findall(r'(?:url\(#|href="#)([^)"]+)', svg))
    names = {old: f"{key}-{index}" for index, old in enumerate(used)}

    def rename(match: re.Match[str]) -> str:
        old = match.group(1)
        return f' id="{names[old]}"' if old in names else ""

    svg = re.sub(r' id="([^"]*)"', rename, svg)
    svg = re.sub(r"url\(#([^)]+)\)", lambda m: f"url(#{names[m.group(1)]})", svg)
    return re.sub(r'href="#([^"]+)"', lambda m: f'href="#{names[m.group(1)]}"', svg)
